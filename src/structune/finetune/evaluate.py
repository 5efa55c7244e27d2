"""A saved run, loaded afresh and scored."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from structune.finetune.adapters import load_trained
from structune.finetune.data import load_data, load_file
from structune.finetune.encode import encode
from structune.finetune.files import write_json
from structune.finetune.model import Base, load_base
from structune.finetune.progress import ProgressBar
from structune.finetune.recipe import Recipe
from structune.finetune.run import Run
from structune.finetune.scores import confusion, per_class, scores
from structune.finetune.trainer import RecipeTrainer

__all__ = ["Evaluation", "LoadedRun", "evaluate", "load_run"]


@dataclass(frozen=True)
class LoadedRun:
    """A finished run in memory: a fresh base model with the saved adapter and head, in evaluation mode."""

    run: Run
    recipe: Recipe
    base: Base
    model: nn.Module
    label_names: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Scores on one set of examples, as written to ``evaluation.json``."""

    source: str
    examples: int
    accuracy: float
    loss: float
    f1: float
    matthews: float
    classes: dict[str, dict[str, float]]


def load_run(folder: str | Path) -> LoadedRun:
    """Load what a finished run saved.

    Raises:
        UserError: no finished run is there, or its base model or adapter cannot be loaded.
    """
    run = Run.finished(folder)
    recipe = run.recipe()
    label_names: list[str] = run.metrics()["labels"]
    base = load_base(recipe.model, label_names, recipe.seed)
    return LoadedRun(run, recipe, base, load_trained(base, recipe.method, run.adapter), label_names)


def evaluate(folder: str | Path, data: str | Path | None = None, console: Console | None = None) -> Evaluation:
    """Score a finished run on its held-out examples, or on another file with the same columns.

    On the held-out examples the numbers equal those at the end of training. They are written to ``evaluation.json`` in
    the run folder with precision, recall and F1 of each class.

    Args:
        folder: the run.
        data: a CSV, TSV or JSON Lines file; the run's own held-out examples by default.
        console: where progress is shown; nowhere by default.

    Raises:
        UserError: the run or the file does not work.
    """
    loaded = load_run(folder)
    recipe, names = loaded.recipe, loaded.label_names
    examples = load_data(recipe.data).evaluation if data is None else load_file(data, recipe.data, names)
    encoded = encode(examples, loaded.base.tokenizer, names, recipe.data.max_length)
    with tempfile.TemporaryDirectory() as scratch:
        bar = ProgressBar(console or Console(quiet=True), "evaluating")
        trainer = RecipeTrainer(loaded.model, loaded.base, recipe, Path(scratch), callbacks=[bar])
        outcome: Any = trainer.predict(encoded)  # type: ignore[arg-type]  # a list of dictionaries is a data set
    counts = confusion(np.asarray(outcome.predictions).argmax(-1), np.asarray(outcome.label_ids), len(names))
    evaluation = Evaluation(
        source="held out" if data is None else str(data),
        examples=len(examples),
        loss=outcome.metrics["test_loss"],
        classes=dict(zip(names, per_class(counts), strict=True)),
        **scores(counts),
    )
    write_json(loaded.run.evaluation_file, vars(evaluation))
    return evaluation
