"""How a run ended that has a process of its own: it takes nothing down with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from structune.errors import Diverged, Interrupted, UserError
from structune.finetune.stopping.signals import Stopped


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
class Took:
    """Seconds of what was done from its beginning; None: it was not.

    Attributes:
        run: made ready, trained, scored on the validation part.
        test: scored on the test part.
    """

    run: float | None = None
    test: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: of end.
        reason: why, if it failed or diverged.
        step: after which it was saved, if it was interrupted; None: it was not.
        number: of the signal that interrupted it.
        test: its scores on the test part, if it was to be scored.
        took: how long it took.
        timed: what it would take, if that was all that was asked.
        measured: what its folder says, if that is on another machine.
    """

    kind: Literal["finished", "interrupted", "failed", "diverged"]
    reason: str = ""
    step: int | None = None
    number: int = signal.SIGINT
    test: dict[str, Any] | None = None
    took: Took = Took()
    timed: Timed | None = None
    measured: dict[str, Any] | None = None


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


def outcome_of_exit_code(exitcode: int) -> Outcome:
    """The outcome of a process that ended without telling."""
    if exitcode == -signal.SIGTERM:
        return Outcome("interrupted")
    if exitcode == -signal.SIGKILL:
        return Outcome("failed", "the process was killed: not enough memory? Try a smaller train.batch_size")
    if exitcode < 0:
        return Outcome("failed", f"the process was ended by {signal.Signals(-exitcode).name}")
    return Outcome("failed", f"the process ended with exit code {exitcode}; its error is above")
