"""Everything but training: the data read, the model built, a few steps taken and thrown away, and what a run takes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from structune.finetune.distributed.launch import refuse_several_processes
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.trainer.meters import MemoryMeter, StepClock
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import Ready, bytes_needed, make_ready
from structune.quiet import quiet

_STEPS = 6
_SECONDS = 30.0  # after two steps, no more are begun


@dataclass(frozen=True)
class Check:
    """What a run takes, judged by a few steps of it.

    Attributes:
        train_examples: to train on.
        eval_examples: held out.
        steps: of the whole run, if it does not stop early.
        evaluations: of the whole run.
        steps_taken: by which the others are judged.
        seconds_per_step: their median.
        seconds_per_evaluation: judged by a few batches of the held-out examples.
        memory_bytes: the most that these steps and batches took.
        memory_kind: what was measured.
        disk_bytes: about what checkpoints and the adapter take.
    """

    train_examples: int
    eval_examples: int
    steps: int
    evaluations: int
    steps_taken: int
    seconds_per_step: float
    seconds_per_evaluation: float
    memory_bytes: int
    memory_kind: str
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.steps * self.seconds_per_step + self.evaluations * self.seconds_per_evaluation


def check(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    recipe_file: Path | None = None,
) -> Check:
    """Do everything that `train` does before its first step, and a few steps that are thrown away. Nothing is written.

    Args:
        recipe: see `train`, as the others.
        resume: judge whether the run could go on; the steps are those of a new one.
        overwrite: whether a run may be there.
        console: where counts are shown.
        recipe_file: where the recipe was read.

    Raises:
        UserError: what would keep `train` from beginning.
        Diverged: numbers ran away in these steps.

    Warns:
        DataWarning: what `train` would warn of.
    """
    refuse_several_processes()
    ready = make_ready(recipe, resume=resume, overwrite=overwrite, console=console, recipe_file=recipe_file)
    clock, few = StepClock(), _AFew()
    train = ready.settings.train
    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = RecipeTrainer.standing_on(
            ready.settings.task.trainer(ready.base, ready.settings.data),
            ready.model,
            ready.base,
            ready.settings,
            ready.data.targets,
            Path(scratch),
            ready.encoded.train,
            callbacks=[
                clock,
                few,
                *ready.settings.task.callbacks(ready.base),
                *ready.settings.method.callbacks(ready.model),
            ],
        )
        trainer.args.save_strategy = SaveStrategy.NO
        with MemoryMeter(cuda=trainer.args.device.type == "cuda") as memory:
            trainer.train()
            trainer.check_trained()
            seconds = _evaluation_seconds(ready, trainer)
    steps = trainer.state.max_steps
    by_steps = -(-steps // train.eval_steps) if train.eval_steps else 0
    return Check(
        train_examples=len(ready.data.train),
        eval_examples=len(ready.data.evaluation),
        steps=steps,
        evaluations=(by_steps or max(1, round(trainer.state.num_train_epochs))) + train.evaluate_first,
        steps_taken=len(clock.durations),
        seconds_per_step=clock.median(),
        seconds_per_evaluation=seconds,
        memory_bytes=memory.peak,
        memory_kind=memory.kind,
        disk_bytes=bytes_needed(ready.model, ready.settings),
    )


class _AFew(TrainerCallback):
    """Ends training after a few steps."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        late = state.global_step >= 2 and time.perf_counter() - self._begun > _SECONDS
        control.should_training_stop = control.should_training_stop or late or state.global_step >= _STEPS


def _evaluation_seconds(ready: Ready, trainer: RecipeTrainer) -> float:
    """Of all held-out examples, judged by two batches from all lengths."""
    examples: Any = ready.encoded.evaluation
    count = min(len(examples), 2 * ready.settings.train.eval_batch_size)
    some: Any = [examples[number * len(examples) // count] for number in range(count)]
    begun = time.perf_counter()
    trainer.predict(some)
    return (time.perf_counter() - begun) * len(examples) / count
