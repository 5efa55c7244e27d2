"""What each of two processes does in the tests of several processes: commands one after the other, and how they ended.

    RANK=0 WORLD_SIZE=2 … python several.py RECIPE DROPOUT_RECIPE

It runs in an empty folder and leaves `ended-RANK.json`: exit code and what was told, by name.
"""

from __future__ import annotations

import sys
from typing import Any

from commands import STEP_BEGINS, command, in_the_second, sets, stop_in_sixth_step, write_ended

from structune.errors import UserError


def missing(*_: Any, **__: Any) -> None:
    raise UserError("data.train = 'there.csv': no such file, but in the second process alone")


recipe, dropout = sys.argv[1:]
command("whole", "train", recipe, *sets("output=whole"))
command("alike", "train", recipe, *sets("output=alike", "train.group_by_length=true"))
chosen = ["train.eval_steps=2", "train.early_stopping=3", "train.best_checkpoint=true"]
command("chosen", "train", recipe, *sets("output=chosen", *chosen))
command("again", "train", recipe, *sets("output=whole"))
command("odd", "train", recipe, *sets("output=odd", "train.batch_size=7"))
command("typo", "train", recipe, *sets("output=odd", "train.batch_sice=8"))
command("evaluate", "evaluate", "whole")
with in_the_second("structune.finetune.training.load_data", missing):
    command("missing", "train", recipe, *sets("output=odd"))

command("dropout", "train", dropout, *sets("output=dropout"))
with in_the_second(STEP_BEGINS, stop_in_sixth_step):
    command("stopped", "train", dropout, *sets("output=stopped"))
command("resumed", "train", "stopped/recipe.yaml", "--resume")

from structune.tasks.text_classification import TextClassification  # noqa: E402  (as late as a command does)

step, calls = TextClassification.step, iter(range(100))


def nothing_in_sixth(self: Any, model: Any, batch: Any) -> Any:
    """The sixth is the first of two parts that one step is accumulated from."""
    loss, outputs = step(self, model, batch)
    return (loss * float("nan") if model.training and next(calls) == 6 else loss), outputs


with in_the_second("structune.tasks.text_classification.TextClassification.step", nothing_in_sixth):
    command("diverged", "train", recipe, *sets("output=diverged", "train.gradient_accumulation=2"))

write_ended()
