"""Signals that ask a command to end: Ctrl-C, what batch systems send, a terminal that was closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C would raise KeyboardInterrupt: everything that cleans up does so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_signals() -> list[int]:
    """SIGINT, SIGTERM and SIGHUP: those that exist here and are not ignored, as nohup and a shell's & ignore some."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def taken(handler: Handler, numbers: list[int] | None = None) -> Iterator[None]:
    """These signals (all `stop_signals` by default) go to `handler` inside; nothing changes outside the main thread.

    What they did before comes back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (stop_signals() if numbers is None else numbers)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)  # None: installed outside Python


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped` inside."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with taken(stop, [number for number in stop_signals() if number != signal.SIGINT]):
        yield
