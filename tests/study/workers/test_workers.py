"""Processes of runs: what they hear while they are being started."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structune.finetune.recipe.recipe import Recipe
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome
from structune.study.workers.processes import _NO_CUDA_HERE, Workers, _deaf_to_interrupts, carry_out

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals as POSIX has them")

HEARS_CTRL_C = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('deaf')"


def test_ctrl_c_while_a_process_starts_is_heard_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with _deaf_to_interrupts():
            signal.raise_signal(signal.SIGINT)  # to this thread, as others do not block it
            assert heard == []
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_that_is_started_meanwhile_does_not_hear_it() -> None:
    with _deaf_to_interrupts():
        deaf = subprocess.run([sys.executable, "-c", HEARS_CTRL_C], capture_output=True, text=True, check=False)
    hears = subprocess.run([sys.executable, "-c", HEARS_CTRL_C], capture_output=True, text=True, check=False)
    assert deaf.stdout == "deaf\n"
    assert hears.stdout == ""


def test_a_run_of_a_study_shows_no_progress(recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    one = recipe("lora", max_steps=1).resolved()
    assert carry_out(Job(one)).kind == "finished"
    assert capsys.readouterr().out == ""
    assert carry_out(Job(one, overwrite=True, quiet=False)).kind == "finished"
    assert "1/1" in capsys.readouterr().out


@pytest.mark.parametrize("noted", [True, False], ids=["", "older"])
@pytest.mark.parametrize("what", ["method", "data", "weights"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_a_run_that_is_there_is_not_taken_for_another(
    recipe: Callable[..., Recipe], tmp_path: Path, finished: bool, what: str, noted: bool
) -> None:
    """Also where the path of what changed is the same, and by folders from before they noted their settings."""
    one = recipe("lora", max_steps=1).resolved()
    shutil.copytree(one.model.name, tmp_path / "model")
    one = one.model_copy(update={"model": one.model.model_copy(update={"name": str(tmp_path / "model")})})
    job = Job(one)
    assert carry_out(job).kind == "finished"
    if not finished:
        job.run.metrics_file.unlink()
    if not noted:
        marker = json.loads(job.run.marker_file.read_text())
        assert marker.pop("noted")
        job.run.marker_file.write_text(json.dumps(marker))
    if finished:
        assert carry_out(job).kind == "finished"
    before = {path: path.read_bytes() for path in job.run.folder.rglob("*") if path.is_file()}
    if what == "method":
        job = Job(one.model_copy(update={"method": one.method.model_copy(update={"rank": 3})}))
    elif what == "data":
        file = Path(one.data.files()["train"])
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    else:
        weights = tmp_path / "model" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        for file in (job.run.marker_file, job.run.metrics_file) if not noted else ():
            if file.is_file():
                os.utime(file, (0, 0))  # file systems tell times less finely than this test writes
    outcome = carry_out(job)
    assert outcome.kind == "failed"
    assert "the data differ" in outcome.reason or f"{job.run.folder}: holds a run with other settings" in outcome.reason
    if noted:
        assert "delete that folder, or take another --work" in outcome.reason
    assert before == {path: path.read_bytes() for path in job.run.folder.rglob("*") if path.is_file()}
    if noted and finished:
        assert carry_out(Job(job.recipe, overwrite=True)).kind == "finished"
        assert carry_out(job).kind == "finished"


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_job_that_is_begun_again_is_waited_for(recipe: Callable[..., Recipe], seconds: float | None) -> None:
    """Where a forked process finds a GPU that it cannot use, the job goes to one that is started afresh."""
    methods: list[str] = []

    class Begun(Workers):
        def start(self, key: str, job: Job) -> None:
            methods.append(self._method)
            receiver, sender = multiprocessing.Pipe(duplex=False)
            sentinel, over = multiprocessing.Pipe(duplex=False)
            sender.send(Outcome("finished") if self._method == "spawn" else Outcome("failed", _NO_CUDA_HERE))
            over.send("it ended")
            process: Any = SimpleNamespace(sentinel=sentinel, join=lambda: None, exitcode=0, terminate=lambda: None)
            self._busy[key] = job, process, receiver

    with Begun(1) as workers:
        workers._method = "forkserver"
        workers.start("run", Job(recipe().resolved()))
        assert workers.wait(seconds) == [("run", Outcome("finished"))]
    assert methods == ["forkserver", "spawn"]
