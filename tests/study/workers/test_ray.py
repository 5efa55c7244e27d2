"""Runs on a Ray cluster, here one of this machine: the same results, through Ctrl-C and a lost process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from structune.errors import Interrupted, UserError
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.study import engine as engines
from structune.study.engine import run_study
from structune.study.inputs import inventory as inputs_module
from structune.study.inputs.inventory import Input
from structune.study.results.files import Results
from structune.study.study_file import Study
from structune.study.workers import processes as workers
from structune.study.workers import ray_task
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome
from structune.study.workers.ray_task import MARK, Answer, Errand, remote, run_errand
from structune.study.workers.ray_workers import RayWorkers

from ..in_turn import InTurn
from ..seen import scores, wait_until


@pytest.fixture
def content(content: dict[str, Any]) -> dict[str, Any]:
    """The pool alone, and as long a training as it takes to be stopped."""
    content["tasks"]["films"]["train"] |= {"max_steps": 60, "save_steps": 10}
    return content | {"methods": [each for each in content["methods"] if each["label"] == "pool"]}


def on_ray() -> list[psutil.Process]:
    """The processes in which Ray has runs."""
    mine = psutil.Process().children(recursive=True)
    return [each for each in mine if any("errand_of_ray" in word for word in each.cmdline())]


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A short name: there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield folder


def test_lost_stopped_and_gone_on_with(
    content: dict[str, Any], tmp_path: Path, ray_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that loses its process goes on in another; after Ctrl-C other processes go on with what Ray has begun."""
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps the token of clusters that it starts
    monkeypatch.setenv("RAY_TMPDIR", ray_folder)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    runs = tmp_path / "work" / "runs" / "films"

    def begun() -> list[Path]:
        return list(runs.glob("*/checkpoints/checkpoint-*/trainer_state.json"))

    def disturb() -> None:
        wait_until(lambda: begun() and on_ray())
        first = begun()[0].parents[2]
        on_ray()[0].kill()
        wait_until(lambda: results.all() and any(first not in saved.parents for saved in begun()))
        happened.append(len(results.all()))
        os.kill(os.getpid(), signal.SIGINT)

    happened: list[int] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    watching = threading.Thread(target=disturb)
    watching.start()
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        run_study(plan, results, Path("work"), ray="local", jobs=1)
    watching.join()
    assert happened == [1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert len(results.all()) < 3
    trained: list[str] = []
    carry_out = workers.carry_out

    def told(job: Job) -> Outcome:
        trained.append(job.run.state())
        return carry_out(job)

    monkeypatch.setattr(workers, "carry_out", told)
    monkeypatch.setattr(engines, "Workers", InTurn)
    run_study(plan, results, Path("work"))
    assert trained[0] in ("unfinished", "finished")  # what was saved is taken up
    run_study(plan, Results(tmp_path / "alone"), tmp_path / "other")
    assert scores(results.folder) == scores(tmp_path / "alone")
    assert len(results.all()) == 3


@pytest.fixture
def errand(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Errand:
    """A run whose data, test part and model are in a folder that another machine does not have."""
    monkeypatch.setattr(ray_task, "_in_own_process", workers.carry_out)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    here = tmp_path / "here"
    shutil.copytree(content["model"]["name"], here / "bert")
    for name in ("train", "validation", "test"):
        shutil.copy(tmp_path / "films.csv", here / f"{name}.csv")
    recipe = Recipe.parse(
        {
            "model": {"name": str(here / "bert")},
            "data": {"train": str(here / "train.csv"), "evaluation": str(here / "validation.csv")},
            "method": {"name": "c3a", "block_size": 8},
            "train": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
            "output": str(here / "runs" / "films" / "one"),
        }
    ).resolved()
    monkeypatch.chdir(here)
    job = Job(recipe, Path("test.csv"))
    (here / MARK).write_text("this disk")
    (tmp_path / "scratch").mkdir()
    errand = Errand.of(job, here)
    monkeypatch.chdir(tmp_path)
    return errand


def nothing(_: Input) -> None:
    """Nothing was sent."""


def packed(errand: Errand) -> dict[str, bytes]:
    return {each.key: each.packed() for each in errand.inputs}


def test_a_machine_without_the_disk_gets_what_the_run_reads(errand: Errand, tmp_path: Path) -> None:
    here, sent = tmp_path / "here", packed(errand)
    shared = run_errand(errand, nothing, "n")
    assert shared.outcome is not None
    assert Run(here / "runs" / "films" / "one").state() == "finished"
    here.rename(tmp_path / "elsewhere")
    wants = run_errand(errand, nothing, "n")
    assert wants.outcome is None
    assert {Path(each.path).name for each in wants.missing} == {"train.csv", "validation.csv", "test.csv", "bert"}
    for content_of in (lambda each: sent[each.key], nothing):  # then they are there
        answer = run_errand(errand, content_of, "n")
        assert answer.outcome is not None, answer
        assert answer.outcome.kind == "finished", answer.outcome.reason
        assert answer.outcome.test == shared.outcome.test
        assert answer.outcome.measured is not None
        assert shared.outcome.measured is not None
        assert answer.outcome.measured["validation"] == shared.outcome.measured["validation"]
    assert not here.exists()
    assert not list((tmp_path / "scratch").glob("structune-*/runs/films/one"))


class RayOfAnswers:
    """Stands for Ray: a task is answered when it is waited for, as on a machine that has nothing but what it was sent.

    Attributes:
        keeps: whether what is sent arrives.
        puts: how many things were sent.
    """

    def __init__(self, keeps: bool = True) -> None:
        self.util = SimpleNamespace(scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=dict))
        self.exceptions = SimpleNamespace(TaskCancelledError=KeyError)
        self.keeps, self.puts = keeps, 0

    def options(self, **_: Any) -> RayOfAnswers:
        return self

    def remote(self, errand: Errand, sent: dict[str, list[Any]]) -> Answer:
        missing = tuple(each for each in errand.inputs if not self.keeps or each.key not in sent)
        return Answer(None if missing else Outcome("finished"), missing, "there", f"node {len(sent)}")

    def put(self, content: bytes) -> bytes:
        self.puts += 1
        return content

    def get(self, ref: Answer) -> Answer:
        return ref

    def wait(self, refs: list[Answer], num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        return refs[:num_returns], refs[num_returns:]


@pytest.mark.parametrize("keeps", [True, False])
def test_jobs_that_begin_side_by_side_are_sent_the_same_once(errand: Errand, tmp_path: Path, keeps: bool) -> None:
    ray = RayOfAnswers(keeps)
    workers = RayWorkers("auto", tmp_path / "here")
    workers._ray = workers._task = ray
    for key in ("a", "b"):
        job = replace(errand.job, recipe=errand.job.recipe.model_copy(update={"seed": ord(key)}))
        workers.start(key, job)
    ended = dict(workers.wait() + workers.wait())
    assert ended.keys() == {"a", "b"}
    assert ray.puts == len(errand.inputs)
    for outcome in ended.values():
        assert outcome.kind == ("finished" if keeps else "failed"), outcome
        assert keeps or "was sent, and is not there" in outcome.reason


def test_other_bytes_at_the_same_place_are_not_taken(errand: Errand, tmp_path: Path) -> None:
    """Where the disk is not shared, a file of that name counts only if it is the same."""
    (tmp_path / "here" / MARK).write_text("another disk")
    with (tmp_path / "here" / "train.csv").open("a") as file:
        file.write("a bad film,good\n")
    config = tmp_path / "here" / "bert" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "relu"}))
    wants = run_errand(errand, nothing, "n")
    assert {Path(each.path).name for each in wants.missing} == {"train.csv", "bert"}


def test_on_a_shared_disk_inputs_are_checked_and_the_start_folder_may_be_missing(
    errand: Errand, tmp_path: Path
) -> None:
    elsewhere = replace(errand, folder=str(tmp_path / "nowhere"))
    answer = run_errand(elsewhere, nothing, "n")
    assert answer.outcome is not None and answer.outcome.kind == "finished", answer
    relative = replace(errand.job, recipe=errand.job.recipe.model_copy(update={"output": "runs/films/one"}))
    answer = run_errand(replace(elsewhere, job=relative), nothing, "n")
    assert answer.outcome is not None
    assert "nowhere: is not there, from where outputs are named; give an absolute --work" in answer.outcome.reason
    with (tmp_path / "here" / "train.csv").open("a") as file:
        file.write("a bad film,good\n")
    answer = run_errand(errand, nothing, "n")
    assert answer.outcome is not None
    assert answer.outcome.kind == "failed"
    csv = tmp_path / "here" / "train.csv"
    assert f"{csv}: is not there, or is another; the work folder is shared" in answer.outcome.reason


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, ""), (0.5, "1")])
def test_a_run_sees_the_gpus_that_it_was_given(
    errand: Errand, monkeypatch: pytest.MonkeyPatch, gpus: float, seen: str
) -> None:
    """Ray leaves what a machine has where a task wants none."""

    def looked(*_: Any) -> Answer:
        return Answer(Outcome("finished", os.environ["CUDA_VISIBLE_DEVICES"]))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(ray_task, "run_errand", looked)
    ray = SimpleNamespace(
        remote=lambda **_: lambda function: function,
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "n"),
    )
    assert remote(ray, 1.0, gpus)(errand, {}).outcome.reason == seen


def test_what_is_told_where_it_cannot_be_done(
    errand: Errand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]
) -> None:
    answer = run_errand(replace(errand, version="0.0.1"), nothing, "n")
    assert answer.outcome is not None
    assert "is installed there and 0.0.1 here; install the same" in answer.outcome.reason
    monkeypatch.setattr(inputs_module, "MOST", 10)
    with pytest.raises(UserError, match=r"bert: has 0.0 GiB, .* is not sent; put a copy at that place"):
        next(each for each in errand.inputs if each.model).packed()
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    with pytest.raises(UserError, match="--gpus 1: give a number above 0, and --ray"):
        run_study(plan, results, tmp_path / "work", gpus=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray: needs Ray; `pip install 'structune\[ray\]'` on every machine"):
        run_study(plan, results, tmp_path / "work", ray="local")
