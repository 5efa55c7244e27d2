"""One training run in a process of its own: its peak memory and time are its own, and it takes nothing down with it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Literal

from rich.console import Console

from structune.finetune.doubt import DataWarning
from structune.finetune.errors import Interrupted, UserError
from structune.finetune.importing import without_remarks
from structune.finetune.recipe import Recipe

__all__ = ["Outcome", "train_in_own_process"]

_READY = "ready"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why, if it failed; after which step it was saved, if it was interrupted (None: it was not)."""

    kind: Literal["finished", "interrupted", "failed"]
    reason: str = ""
    step: int | None = None


def train_in_own_process(recipe: Recipe, resume: bool, overwrite: bool, quiet: bool = False) -> Outcome:
    """`structune.finetune.train.train` in a fresh process that shows its progress on this one's terminal.

    Ctrl-C reaches both processes: the run saves a checkpoint and ends, and this one waits for it.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_train, args=(sender, recipe, resume, overwrite, quiet), daemon=True)
    with _left_to(child, receiver):
        sender.close()
        child.join()
    try:
        receiver.recv()
        outcome: Outcome = receiver.recv()
    except EOFError:
        return _without_word(child.exitcode or 0)
    return outcome


def _train(sender: Connection, recipe: Recipe, resume: bool, overwrite: bool, quiet: bool) -> None:
    """What the new process does. An error that is no `UserError` ends it with its traceback."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sender.send(_READY)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other
    warnings.filterwarnings("ignore", category=DataWarning)  # the first process told
    try:
        with without_remarks():
            from structune.finetune.train import train

        train(recipe, resume=resume, overwrite=overwrite, console=Console(quiet=quiet))
    except UserError as error:
        sender.send(Outcome("failed", str(error)))
    except Interrupted as stop:
        sender.send(Outcome("interrupted", step=stop.step))
    except KeyboardInterrupt:
        sender.send(Outcome("interrupted"))
    else:
        sender.send(Outcome("finished"))


@contextmanager
def _left_to(child: BaseProcess, receiver: Connection) -> Iterator[None]:
    """Start the child, and leave Ctrl-C to it. While it is starting up it is deaf to it, and is ended from here."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not receiver.poll():
            child.terminate()

    if threading.current_thread() is not threading.main_thread():
        child.start()
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the child until it says otherwise
    try:
        child.start()
        signal.signal(signal.SIGINT, on_signal)
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _without_word(exitcode: int) -> Outcome:
    """The outcome of a process that ended without telling."""
    if exitcode == -signal.SIGTERM:
        return Outcome("interrupted")
    if exitcode == -signal.SIGKILL:
        return Outcome("failed", "the process was killed: not enough memory? Try a smaller train.batch_size")
    if exitcode < 0:
        return Outcome("failed", f"the process was ended by {signal.Signals(-exitcode).name}")
    return Outcome("failed", f"the process ended with exit code {exitcode}; its error is above")
