"""What each of two processes does in the tests of several processes: commands one after the other, and how they ended.

    RANK=0 WORLD_SIZE=2 … python several.py RECIPE DROPOUT_RECIPE

It runs in an empty folder and leaves `ended-RANK.json`: exit code and what was told, by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from structune import cli
from structune.errors import UserError

RANK = int(os.environ["RANK"])
ended: dict[str, Any] = {}


def command(name: str, *words: str) -> None:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            cli.app(list(words), standalone_mode=False)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    ended[name] = [code, told.getvalue()]


@contextlib.contextmanager
def in_the_second(target: str, what: Any) -> Iterator[None]:
    """Something goes wrong, or comes, in the second process alone."""
    with mock.patch(target, what) if RANK == 1 else contextlib.nullcontext():
        yield


def missing(*_: Any, **__: Any) -> None:
    raise UserError("data.train = 'there.csv': no such file, but in the second process alone")


def stop_in_sixth_step(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
    if state.global_step == 5:
        os.kill(os.getpid(), signal.SIGTERM)


recipe, dropout = sys.argv[1:]
command("whole", "train", recipe, "--set", "output=whole")
command("alike", "train", recipe, "--set", "output=alike", "--set", "train.group_by_length=true")
chosen = ["train.eval_steps=2", "train.early_stopping=3", "train.best_checkpoint=true"]
command("chosen", "train", recipe, *(word for each in ["output=chosen", *chosen] for word in ("--set", each)))
command("again", "train", recipe, "--set", "output=whole")
command("odd", "train", recipe, "--set", "output=odd", "--set", "train.batch_size=7")
command("typo", "train", recipe, "--set", "output=odd", "--set", "train.batch_sice=8")
command("evaluate", "evaluate", "whole")
with in_the_second("structune.finetune.training.load_data", missing):
    command("missing", "train", recipe, "--set", "output=odd")

command("dropout", "train", dropout, "--set", "output=dropout")
with in_the_second("structune.finetune.interrupt.StopOnInterrupt.on_step_begin", stop_in_sixth_step):
    command("stopped", "train", dropout, "--set", "output=stopped")
command("resumed", "train", "stopped/recipe.yaml", "--resume")

from structune.tasks.text_classification import TextClassification  # noqa: E402  (as late as a command does)

step, calls = TextClassification.step, iter(range(100))


def nothing_in_sixth(self: Any, model: Any, batch: Any) -> Any:
    """The sixth is the first of two parts that one step is accumulated from."""
    loss, outputs = step(self, model, batch)
    return (loss * float("nan") if model.training and next(calls) == 6 else loss), outputs


with in_the_second("structune.tasks.text_classification.TextClassification.step", nothing_in_sixth):
    command("diverged", "train", recipe, "--set", "output=diverged", "--set", "train.gradient_accumulation=2")

Path(f"ended-{RANK}.json").write_text(json.dumps(ended))
