"""A signal during training, Ctrl-C or a batch system's: finish the step, save, stop."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structune.finetune.distributed.processes import Processes
from structune.finetune.stopping.signals import taken


class StopOnInterrupt(TrainerCallback):
    """A context manager and callback that ends training early, with a checkpoint.

    The first signal lets the step in progress finish. A second Ctrl-C is Python's usual KeyboardInterrupt; another
    SIGTERM or SIGHUP changes nothing, since batch systems send several before they kill. Of several processes all stop
    after the same step, whichever was told; another Ctrl-C changes nothing there, since launchers pass theirs on.

    Args:
        processes: that train together.

    Attributes:
        number: of the signal that asked for it; None before.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self.processes = processes or Processes()
        self.number: int | None = None

    def __enter__(self) -> StopOnInterrupt:
        self._stack = ExitStack()
        self._stack.enter_context(taken(self._on_signal))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        elif number == signal.SIGINT and not self.processes.several:
            raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.number = next((number for number in self.processes.gather(self.number) if number is not None), None)
        if self.number is not None:
            control.should_log = control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The trainer comes by here after the last step of an epoch, and when it stops in the middle of one."""
        if self.number is not None:
            control.should_save = True
            control.should_evaluate = control.should_evaluate and float(state.epoch or 0).is_integer()
