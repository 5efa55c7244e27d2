"""A saved run, loaded afresh and scored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from torch import nn

from structune.errors import UserError
from structune.files import write_json
from structune.finetune.adapters import load_trained
from structune.finetune.data import load_data, load_file
from structune.finetune.data.examples import check_labels
from structune.finetune.encode import encode, warn_of_cut_texts
from structune.finetune.fingerprint import Fingerprint, Rows
from structune.finetune.model import Base, load_base
from structune.finetune.progress import ProgressBar
from structune.finetune.recipe import ResolvedRecipe
from structune.finetune.run import UNCHECKED, Run
from structune.finetune.scores import confusion, per_class, scores
from structune.finetune.trainer import RecipeTrainer


@dataclass(frozen=True)
class LoadedRun:
    """A finished run in memory: a fresh base model with the saved adapter and head, in evaluation mode."""

    run: Run
    recipe: ResolvedRecipe
    base: Base
    model: nn.Module
    label_names: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Scores on one set of examples, as written to `evaluation.json`.

    `notes` say what makes them worth less: rows that were trained on, data that changed since.
    """

    source: str
    examples: int
    accuracy: float
    loss: float
    f1: float
    matthews: float
    classes: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)


def load_run(folder: str | Path) -> LoadedRun:
    """Load what a finished run saved.

    Raises:
        UserError: no finished run is there, or its base model or adapter cannot be loaded.
    """
    run = Run.finished(folder)
    recipe = run.recipe()
    label_names = run.label_names()
    base = load_base(recipe.model, label_names, recipe.seed)
    return LoadedRun(run, recipe, base, load_trained(base, recipe.method, run.adapter), label_names)


def evaluate(folder: str | Path, data: str | Path | None = None, console: Console | None = None) -> Evaluation:
    """Score a finished run on its held-out examples, or on another file with the same columns.

    On the held-out examples the numbers equal those at the end of training, if the data are those of training: what
    changed since is noted. They are written to `evaluation.json` in the run folder with precision, recall and F1 of
    each class.

    Args:
        folder: the run.
        data: a CSV, TSV or JSON Lines file; the run's own held-out examples by default.
        console: where progress and notes are shown; nowhere by default.

    Raises:
        UserError: the run or the file does not work, or the model's outputs are not numbers.
    """
    console = console or Console(quiet=True)
    loaded = load_run(folder)
    recipe, names = loaded.recipe, loaded.label_names
    before = Fingerprint.load(loaded.run.data_file)
    if data is None:
        now = load_data(recipe.data)
        examples = now.evaluation
        notes = _since_training(before, Fingerprint.of(now), names)
        check_labels(examples.labels, names, "the held-out examples")
    else:
        examples = load_file(data, recipe.data, names)
        notes = _trained_on(before, Rows.of(examples))
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True, highlight=False)
    warn_of_cut_texts([examples], loaded.base.tokenizer, recipe.data.max_length)
    encoded = encode(examples, loaded.base.tokenizer, names, recipe.data.max_length)
    bar = ProgressBar(console, "evaluating")
    with tempfile.TemporaryDirectory() as scratch, bar.shown():
        trainer = RecipeTrainer(loaded.model, loaded.base, recipe, Path(scratch), callbacks=[bar])
        outcome: Any = trainer.predict(encoded)  # type: ignore[arg-type]  # a list of dictionaries is a data set
    predictions = np.asarray(outcome.predictions)
    if not np.isfinite(predictions).all() or not np.isfinite(outcome.metrics["test_loss"]):
        raise UserError(
            f"run {str(folder)!r}: its outputs on these examples are not finite, so they say nothing; "
            f"the adapter's or the base model's numbers are broken: train again, with lower rates"
        )
    counts = confusion(predictions.argmax(-1), np.asarray(outcome.label_ids), len(names))
    evaluation = Evaluation(
        source="held out" if data is None else str(data),
        examples=len(examples),
        loss=outcome.metrics["test_loss"],
        classes=dict(zip(names, per_class(counts), strict=True)),
        notes=notes,
        **scores(counts),
    )
    try:
        write_json(loaded.run.evaluation_file, vars(evaluation))
    except OSError as error:
        console.print(
            f"[yellow]{escape(str(loaded.run.evaluation_file))}: cannot be written ({error.strerror})[/]",
            soft_wrap=True,
        )
    return evaluation


def _since_training(before: Fingerprint | None, now: Fingerprint, names: Sequence[str]) -> list[str]:
    """What the run's own data say against the scores."""
    if before is None:
        changed = [] if list(now.classes) == list(names) else ["its classes are not those of the data any more"]
        return [UNCHECKED, *changed]
    notes = [f"the data changed since training: {change}" for change in before.changes(now)]
    return notes + _trained_on(before, now.evaluation)


def _trained_on(before: Fingerprint | None, rows: Rows) -> list[str]:
    """How many of these rows were trained on."""
    if before is None:
        return ["the run is older than the record of its data: whether these rows were trained on cannot be checked"]
    count = before.trained_on(rows)
    return [f"{count:,} of these {len(rows):,} rows were trained on: their scores are too good"] if count else []
