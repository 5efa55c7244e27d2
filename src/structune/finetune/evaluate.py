"""A saved run, loaded afresh and scored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from structune.data.examples import Examples
from structune.doubt import say
from structune.errors import UserError
from structune.files import write_bytes, write_json
from structune.finetune.adapters import load_trained
from structune.finetune.outputs import are_finite, shortest_first
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.rows import Rows
from structune.finetune.run_folder.run import UNCHECKED, Run
from structune.finetune.task_data import TaskData, load_data, load_file
from structune.finetune.trainer.progress import ProgressBar
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.section import closest
from structune.tasks.parts.weights import with_plain_weights
from structune.tasks.task import Base, Metric, Outputs, Targets


@dataclass(frozen=True)
class LoadedRun:
    """A finished run in memory: a fresh base model with the saved adapter and head, in evaluation mode."""

    run: Run
    recipe: ResolvedRecipe
    base: Base
    model: nn.Module
    targets: Targets

    def check_outputs(self, outputs: Outputs, where: str) -> None:
        """Raises `UserError` where an output on what `where` calls is not finite."""
        if not are_finite(outputs):
            raise UserError(
                f"run {str(self.run.folder)!r}: its outputs on {where} are not finite, so they say nothing; the "
                f"adapter's or the base model's numbers are broken: train again, with lower rates"
            )


@dataclass(frozen=True)
class Evaluation:
    """Scores on one set of examples.

    `scores` are those of the task's metrics, `details` what it says besides, `baseline` what an answer that never looks
    would score, and `notes` say what makes them worth less: rows that were trained on, data that changed since.
    `figures` are the files that the task drew.
    """

    source: str
    examples: int
    loss: float
    scores: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    metrics: tuple[Metric, ...] = ()
    baseline: str = ""
    figures: list[Path] = field(default_factory=list)

    def shown(self) -> list[tuple[str, str]]:
        """Title and value of each score."""
        return [(metric.title, metric.text(self.scores[metric.key], more=1)) for metric in self.metrics]

    def tables(self) -> Iterator[tuple[str, dict[str, dict[str, float | str]]]]:
        """The details that are tables, by their titles."""
        for title, rows in self.details.items():
            if isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values()):
                yield title, rows

    def numbers(self) -> Iterator[tuple[str, float]]:
        """The details that are one number each."""
        for title, value in self.details.items():
            if isinstance(value, float):
                yield title.replace("_", " "), value

    def to_json(self) -> dict[str, Any]:
        """As `evaluation.json` holds it."""
        known = {"source": self.source, "examples": self.examples, "loss": self.loss}
        return {**known, **self.scores, **self.details, "notes": self.notes}


def load_run(folder: str | Path, plain_weights: bool = False) -> LoadedRun:
    """Load what a finished run saved.

    Args:
        folder: the run.
        plain_weights: whether weights that were quantised are had as what they stand for, in fp32.

    Raises:
        UserError: no finished run is there, or its base model or adapter cannot be loaded.
    """
    run = Run.finished(folder)
    recipe = run.recipe()
    targets = run.targets()
    loaded = recipe.task.load(recipe.model, targets, recipe.seed)
    if plain_weights:
        loaded = replace(loaded, model=with_plain_weights(loaded.model))
    base = recipe.task.equip(loaded, run.prepared())
    return LoadedRun(run, recipe, base, load_trained(base, recipe.method, run.adapter), targets)


def evaluate(
    folder: str | Path, data: str | Path | None = None, console: Console | None = None, part: str | None = None
) -> Evaluation:
    """Score a finished run on its test part, else on its held-out examples, or on another file with the same columns.

    On the held-out examples the numbers equal those at the end of training, if the data are those of training: what
    changed since is noted. They are written to `evaluation.json` in the run folder, with what the task says besides,
    and the task draws its figures beside it.

    Args:
        folder: the run.
        data: a file, of any kind that can be trained on; the run's own held-out examples by default.
        console: where progress and notes are shown; nowhere by default.
        part: which of the run's own examples: `validation` or `test`; by default the test part where there is one.

    Raises:
        UserError: there is no such part; the run or the file does not work, or the model's outputs are not numbers.
    """
    console = console or Console(quiet=True)
    _check_part(part, data)
    loaded = load_run(folder)
    recipe, task, targets = loaded.recipe, loaded.recipe.task, loaded.targets
    before = Fingerprint.load(loaded.run.data_file)
    if data is None:
        now = load_data(task, recipe.data)
        source, examples = _part(now, part)
        notes = _since_training(before, Fingerprint.of(now), Rows.of(examples), targets)
        task.check(examples, targets, "the held-out examples")
    else:
        source, examples = str(data), load_file(data, task, recipe.data, targets)
        notes = _trained_on(before, Rows.of(examples))
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True, highlight=False)
    say(task.doubts_about_encoding([examples], loaded.base, recipe.data))
    encoded = shortest_first(task, task.encode(examples, loaded.base, targets, recipe.data))
    bar = ProgressBar(console, "evaluating", task.metrics[0])
    with tempfile.TemporaryDirectory() as scratch, bar.shown():
        trainer = RecipeTrainer(loaded.model, loaded.base, recipe, targets, Path(scratch), callbacks=[bar])
        outcome: Any = trainer.predict(encoded)  # type: ignore[arg-type]  # any sequence is a data set
        with torch.no_grad():
            samples = task.samples_of(loaded.model.eval(), loaded.base, examples, targets, recipe.data)
    loaded.check_outputs((outcome.predictions, outcome.metrics["test_loss"]), "these examples")
    outputs, labels = outcome.predictions, outcome.label_ids
    evaluation = Evaluation(
        source=source,
        examples=len(examples),
        loss=outcome.metrics["test_loss"],
        scores={metric.key: outcome.metrics[f"test_{metric.key}"] for metric in task.metrics},
        details=task.details(outputs, labels, targets) | task.found(loaded.base.prepared, targets) | samples,
        notes=notes,
        metrics=task.metrics,
        baseline=_words(task.metrics[0], task.baseline(examples)),
    )
    try:
        write_json(loaded.run.evaluation_file, evaluation.to_json())
        figures = _draw(loaded, outputs, labels)
    except OSError as error:
        console.print(
            f"[yellow]{escape(str(error.filename or loaded.run.folder))}: cannot be written ({error.strerror})[/]",
            soft_wrap=True,
        )
        return evaluation
    return replace(evaluation, figures=figures)


def _draw(loaded: LoadedRun, outputs: Outputs, labels: Any) -> list[Path]:
    """The task's figures in the run folder, each whole; those of an evaluation before that were not drawn now go."""
    folder, task, targets = loaded.run.folder, loaded.recipe.task, loaded.targets
    with tempfile.TemporaryDirectory() as scratch:
        files = task.draw(outputs, labels, targets, Path(scratch))
        files += task.draw_found(loaded.base.prepared, targets, Path(scratch))
        drawn = {path.name: path.read_bytes() for path in files}
    for name in task.figures:
        if name not in drawn:
            (folder / name).unlink(missing_ok=True)
    for name, picture in drawn.items():
        write_bytes(folder / name, picture)
    return [folder / name for name in drawn]


def _words(metric: Metric, baseline: Mapping[str, Any]) -> str:
    """What an answer that never looks would score; nothing where that is not known."""
    return f"{baseline['words']}: {metric.title} {metric.text(baseline['value'], more=1)}" if baseline else ""


_PARTS = ["validation", "test"]


def _check_part(part: str | None, data: str | Path | None) -> None:
    """Raises `UserError` where it is none, or another file is to be scored."""
    if part is None:
        return
    if part not in _PARTS:
        raise UserError(f"part = {part!r}: unknown{closest(part, _PARTS)}; known: {', '.join(_PARTS)}")
    if data is not None:
        raise UserError(f"part = {part!r} is one of the run's own, and {str(data)!r} another file; give one of them")


def _part(data: TaskData, part: str | None) -> tuple[str, Examples]:
    """What a part of a run's own examples is called, and they."""
    if part == "test" and data.test is None:
        raise UserError(
            "part = 'test': the run has no test part; train with data.test_examples, data.test or data.test_split"
        )
    if data.test is not None and part != "validation":
        return "test part", data.test
    return "held out" if data.test is None else "validation part", data.evaluation


def _since_training(before: Fingerprint | None, now: Fingerprint, rows: Rows, targets: Targets) -> list[str]:
    """What the run's own data say against the scores."""
    if before is None:
        changed = [] if now.targets == targets else [f"its {', '.join(targets)} are not those of the data any more"]
        return [UNCHECKED, *changed]
    notes = [f"the data changed since training: {change}" for change in before.changes(now)]
    return notes + _trained_on(before, rows)


def _trained_on(before: Fingerprint | None, rows: Rows) -> list[str]:
    """How many of these rows were trained on."""
    if before is None:
        return ["the run is older than the record of its data: whether these rows were trained on cannot be checked"]
    count = before.trained_on(rows)
    return [f"{count:,} of these {len(rows):,} rows were trained on: their scores are too good"] if count else []
