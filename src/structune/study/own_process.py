"""One training run in a process of its own: its peak memory and time are its own, and it takes nothing down with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from structune.doubt import DataWarning
from structune.errors import Diverged, Interrupted, UserError
from structune.finetune.importing import without_remarks
from structune.finetune.recipe import ResolvedRecipe
from structune.finetune.signals import Stopped, stop_signals, taken

_READY = "ready"


@dataclass(frozen=True)
class Timed:
    """What a run takes, in seconds.

    Attributes:
        run: the whole of it.
        step: of training.
        evaluation: of one score on the validation part.
        examples: in that part.
    """

    run: float
    step: float
    evaluation: float
    examples: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: of end.
        reason: why, if it failed or diverged.
        step: after which it was saved, if it was interrupted; None: it was not.
        number: of the signal that interrupted it.
        test: its scores on the test part, if it was to be scored.
        timed: what it would take, if that was all that was asked.
        measured: what its folder says, if that is on another machine.
    """

    kind: Literal["finished", "interrupted", "failed", "diverged"]
    reason: str = ""
    step: int | None = None
    number: int = signal.SIGINT
    test: dict[str, Any] | None = None
    timed: Timed | None = None
    measured: dict[str, Any] | None = None


def train_in_own_process(recipe: ResolvedRecipe, resume: bool, overwrite: bool, quiet: bool = False) -> Outcome:
    """`structune.finetune.training.train` in a fresh process that shows its progress on this one's terminal.

    Ctrl-C reaches both processes, and SIGTERM and SIGHUP are passed on: the run saves a checkpoint and ends, and this
    process waits for it. When this process is killed, the run saves and ends too.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    hears = signal.SIGINT in stop_signals()
    child = context.Process(target=_train, args=(sender, recipe, resume, overwrite, quiet, hears), daemon=True)
    with _passing_signals_to(child, receiver) as received:
        sender.close()
        child.join()
    try:
        receiver.recv()
        outcome: Outcome = receiver.recv()
    except EOFError:
        outcome = outcome_of_exit_code(child.exitcode or 0)
    if received and outcome.kind in ("finished", "diverged"):
        outcome = Outcome("interrupted")  # the signal came when there was nothing left to stop but the next run
    return replace(outcome, number=received[0]) if received and outcome.kind == "interrupted" else outcome


def stop_if_interrupted(outcome: Outcome, go_on: str) -> None:
    """Raises `Interrupted`, or `KeyboardInterrupt` where nothing was saved, if a signal asked for the end.

    Args:
        outcome: of the last run.
        go_on: what continues it.
    """
    if outcome.kind != "interrupted":
        return
    if outcome.step is not None:
        raise Interrupted(outcome.step, go_on, outcome.number)
    raise KeyboardInterrupt if outcome.number == signal.SIGINT else Stopped(outcome.number)


def _train(sender: Connection, recipe: ResolvedRecipe, resume: bool, overwrite: bool, quiet: bool, hears: bool) -> None:
    """What the new process does. An error that is no `UserError` ends it with its traceback."""
    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sender.send(_READY)
    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other
    warnings.filterwarnings("ignore", category=DataWarning)  # the first process told

    def trained() -> Outcome:
        with without_remarks():
            from structune.finetune.training import train

        train(recipe, resume=resume, overwrite=overwrite, console=Console(quiet=quiet))
        return Outcome("finished")

    outcome = outcome_of(trained)
    with suppress(BrokenPipeError):  # the parent was killed
        sender.send(outcome)


def outcome_of(do: Callable[[], Outcome]) -> Outcome:
    """How a run ended: as it says, or by what it raised. An error that is no `UserError` goes on."""
    try:
        return do()
    except Diverged as error:
        return Outcome("diverged", str(error))
    except UserError as error:
        return Outcome("failed", str(error))
    except Interrupted as stop:
        return Outcome("interrupted", step=stop.step, number=stop.number)
    except KeyboardInterrupt:
        return Outcome("interrupted")


def end_with_parent() -> None:
    """Wait for the parent's end, and take it for a SIGTERM."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _passing_signals_to(child: BaseProcess, receiver: Connection) -> Iterator[list[int]]:
    """Start the child, and leave signals to it: Ctrl-C reaches it anyway, others are passed on.

    While it is starting up it is deaf to Ctrl-C, and is ended from here. Yields the list of the signals that came.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number != signal.SIGINT or not receiver.poll():
            child.terminate()

    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        child.start()
        yield received
        return
    numbers = stop_signals()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the child until it says otherwise
    try:
        child.start()
    finally:
        signal.signal(signal.SIGINT, before)
    with taken(on_signal, numbers):
        yield received


def outcome_of_exit_code(exitcode: int) -> Outcome:
    """The outcome of a process that ended without telling."""
    if exitcode == -signal.SIGTERM:
        return Outcome("interrupted")
    if exitcode == -signal.SIGKILL:
        return Outcome("failed", "the process was killed: not enough memory? Try a smaller train.batch_size")
    if exitcode < 0:
        return Outcome("failed", f"the process was ended by {signal.Signals(-exitcode).name}")
    return Outcome("failed", f"the process ended with exit code {exitcode}; its error is above")
