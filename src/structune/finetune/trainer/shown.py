"""What a task draws of its model before, while and after it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structune.finetune.distributed.processes import Processes
from structune.tasks.task import Base, Targets, Task

BEFORE = "_before"
"""Behind the name of a number, among the metrics of a run: it was measured before the first step."""


class Shown(TrainerCallback):
    """Asks the task to `show` its model after the steps that it named. One of several processes does it.

    Random numbers of training are not drawn on, and the model trains on as it did.

    Attributes:
        log: what the numbers that it gives are told.
    """

    def __init__(self, task: Task, base: Base, targets: Targets, folder: Path, processes: Processes) -> None:
        self.task = task
        self.base = base
        self.targets = targets
        self.folder = folder
        self.processes = processes
        self.log: Callable[[dict[str, float]], None] = lambda numbers: None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if state.global_step == 0:
            self._perhaps(model, 0, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if state.global_step < state.max_steps:
            self._perhaps(model, state.global_step, state.max_steps)

    def last(self, model: nn.Module, state: TrainerState) -> Mapping[str, float]:
        """After the last step, of the weights that are kept; its numbers, and those before training as `…_before`."""
        if not self.task.shown_at(state.max_steps):
            return {}
        first = {name: value for entry in state.log_history if entry["step"] == 0 for name, value in entry.items()}
        numbers = self._show(model, state.global_step)
        known = [metric.key for metric in self.task.shown_metrics if metric.key in numbers and metric.key in first]
        return {**numbers, **{f"{key}{BEFORE}": first[key] for key in known}}

    def _perhaps(self, model: nn.Module, step: int, steps: int) -> None:
        if step in self.task.shown_at(steps):
            self._show(model, step)

    def _show(self, model: nn.Module, step: int) -> Mapping[str, float]:
        if not self.processes.first:
            return {}
        training = model.training
        try:
            with torch.random.fork_rng(), torch.no_grad():
                numbers = dict(self.task.show(model.eval(), self.base, self.targets, step, self.folder))
        finally:
            model.train(training)
        if numbers:
            self.log(numbers)
        return numbers
