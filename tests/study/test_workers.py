"""Processes of runs: what they hear while they are being started."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from structune.finetune.recipe import Recipe
from structune.study.workers import Job, _deaf_to_interrupts, carry_out

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
