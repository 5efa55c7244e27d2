"""Processes of runs: what they hear while they are being started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from structune.study.workers import _deaf_to_interrupts

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
