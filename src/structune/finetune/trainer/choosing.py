"""Which evaluation was the best, and when there is no hope of a better one.

Both are read off the log of the evaluations, which a checkpoint holds: a resumed run chooses as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structune.doubt import say
from structune.finetune.recipe.recipe import TrainSection
from structune.tasks.task import Metric

History = Sequence[Mapping[str, Any]]


class Best(NamedTuple):
    """An evaluation: after which step, and its value of the metric."""

    step: int
    value: float

    @classmethod
    def of(cls, entry: Mapping[str, Any], metric: Metric) -> Best | None:
        """That of an entry of the log; None if it is of no evaluation."""
        key = f"eval_{metric.key}"
        return cls(entry["step"], entry[key]) if key in entry else None


def best(history: History, metric: Metric) -> Best | None:
    """The best evaluation so far, the first among equals; None before there is one."""
    found: Best | None = None
    for entry in _evaluations(history, metric):
        if found is None or metric.better(entry.value, found.value):
            found = entry
    return found


def without_gain(history: History, metric: Metric, minimum_gain: float) -> int:
    """How many evaluations were made since the last that was better by more than `minimum_gain` than the last such."""
    count, reference = 0, None
    for entry in _evaluations(history, metric):
        gained = reference is None or abs(entry.value - reference) > minimum_gain
        if gained and (reference is None or metric.better(entry.value, reference)):
            count, reference = 0, entry.value
        else:
            count += 1
    return count


class Choosing(TrainerCallback):
    """Ends training after `early_stopping.patience` evaluations without a gain, and saves each that is the best so far.

    Attributes:
        stopped: whether the evaluations so far end training.
    """

    def __init__(self, settings: TrainSection, metric: Metric) -> None:
        self.settings = settings
        self.metric = metric
        self.stopped = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.stopped = self._is_over(state)
        stopping = self.settings.early_stopping
        if stopping is not None and (count := _evaluations_to_come(args, state)) <= stopping.patience:
            say(
                [
                    f"train.early_stopping = {stopping.patience}: there are {count} evaluations in the whole run, so "
                    f"it never stops early; give train.eval_steps, more train.epochs, or a smaller number"
                ]
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        so_far = best(state.log_history, self.metric)
        if self.settings.best_checkpoint and so_far is not None and so_far.step == state.global_step:
            control.should_save = True
        self.stopped = self._is_over(state)
        control.should_training_stop = control.should_training_stop or self.stopped

    def _is_over(self, state: TrainerState) -> bool:
        stopping = self.settings.early_stopping
        if stopping is None:
            return False
        return without_gain(state.log_history, self.metric, stopping.minimum_gain) >= stopping.patience


def _evaluations(history: History, metric: Metric) -> list[Best]:
    """Those of a trained model: there is no checkpoint from before the first step."""
    found = [Best.of(entry, metric) for entry in history]
    return [entry for entry in found if entry is not None and entry.step > 0]


def _evaluations_to_come(args: TrainingArguments, state: TrainerState) -> int:
    return state.max_steps // int(args.eval_steps) if args.eval_steps else -(-state.num_train_epochs // 1)
