"""Ctrl-C during training: finish the step, save, stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["StopOnInterrupt"]


class StopOnInterrupt(TrainerCallback):
    """A context manager and callback that ends training early, with a checkpoint.

    The first Ctrl-C lets the step in progress finish; a second one is Python's usual KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopOnInterrupt:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.requested:
            control.should_log = control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The trainer comes by here after the last step of an epoch, and when it stops in the middle of one."""
        if self.requested:
            control.should_save = True
            control.should_evaluate = control.should_evaluate and float(state.epoch or 0).is_integer()
