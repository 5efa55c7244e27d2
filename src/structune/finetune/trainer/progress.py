"""The training log: a file of JSON lines, and a progress bar with an estimate of the time left."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structune.files import write_text
from structune.tasks.task import Metric


class LogFile(TrainerCallback):
    """Keeps a file equal to the trainer's log history, one JSON object a line; a resumed run goes on with it.

    The last step is always logged, however often the others are: it belongs to the mean loss and to the curve.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.path, "".join(_line(entry) for entry in state.log_history))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


class ProgressBar(TrainerCallback):
    """Steps, loss and time left, redrawn in place on a terminal; a line with the headline score for each evaluation."""

    def __init__(self, console: Console, label: str, metric: Metric) -> None:
        self.console = console
        self.metric = metric
        self.label = label
        self.loss = ""
        self.steps: TaskID | None = None
        self.evaluating: TaskID | None = None
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bar goes when the block ends, with an error too."""
        try:
            yield
        finally:
            self.bar.stop()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steps = self.bar.add_task(self.label, total=state.max_steps, completed=state.global_step, note="")
        self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.steps is not None:
            self.bar.update(self.steps, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if "loss" in state.log_history[-1] and self.steps is not None:
            self.loss = f"{state.log_history[-1]['loss']:.3f}"
            self.bar.update(self.steps, note=f"loss {self.loss}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.evaluating is None:
            self.evaluating = self.bar.add_task("evaluating", total=len(kwargs["eval_dataloader"]), note="")
            self.bar.start()
        self.bar.advance(self.evaluating)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if self.evaluating is not None:
            self.bar.remove_task(self.evaluating)
            self.evaluating = None
        width = len(str(state.max_steps))
        score = self.metric.text(metrics[f"eval_{self.metric.key}"])
        loss = f"   training loss {self.loss}" if self.loss else ""
        self.console.print(
            f"  step {state.global_step:>{width}}/{state.max_steps}   {self.metric.title} {score}   "
            f"loss {metrics['eval_loss']:.3f}{loss}",
            highlight=False,
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.stop()

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **_: Any
    ) -> None:
        self.bar.stop()


def _line(entry: dict[str, Any]) -> str:
    known = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
    return json.dumps(known, allow_nan=False) + "\n"
