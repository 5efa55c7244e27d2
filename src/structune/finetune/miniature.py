"""Recipes in small: two steps of a small random model of the same architecture, on few rows, some of them made up."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.split import stratified_split
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data, without_validation
from structune.tasks.parts.model_section import refuse_quantised_head
from structune.tasks.task import Task

WIDEST = 1024
"""How wide layers are at most: wider ones are halved until they are not."""

_TRAIN, _HELD_OUT = 24, 6
_TRIED = 200  # held-out rows that are looked at

_LEFT_OUT = {
    "epochs", "eval_steps", "save_steps", "evaluate_first", "early_stopping", "best_checkpoint", "metric", "report_to",
    "gradient_accumulation",
}  # fmt: skip
"""Keys of the `train` section that say how long, how often, and whom to tell."""


class Miniature(NamedTuple):
    """A recipe in small.

    Attributes:
        recipe: the recipe.
        test: a file of examples to score it on.
    """

    recipe: Recipe
    test: Path


class Miniatures:
    """Makes recipes small. What it makes of a model or of data is used for all recipes that name them.

    Args:
        folder: where models, data and runs go.
        widest: how wide layers are at most.

    Attributes:
        notes: what stands in for what, a sentence each.
    """

    def __init__(self, folder: Path, widest: int = WIDEST) -> None:
        self.folder, self.widest = folder, widest
        self.notes: list[str] = []
        self._models: dict[tuple[str, ...], Path] = {}
        self._parts: dict[str, dict[str, Path]] = {}
        self._counts: dict[str, int] = {}

    def of(self, recipe: Recipe, output: str, validation_examples: int = 0) -> Miniature:
        """The recipe in small, whose run goes into a folder of that name.

        Args:
            recipe: the recipe.
            output: the folder's name.
            validation_examples: that a study takes out of what there is to train on.

        Raises:
            UserError: its data are there and do not work, its task has no small model, or the recipe itself is refused.
        """
        if recipe.task.trains_head():
            refuse_quantised_head(recipe.model)  # the small model has all bits
        model, (parts, count) = self._model(recipe), self._data(recipe, validation_examples)
        recipe.task.check_training(recipe.train, count, 1)
        own = recipe.data.model_dump(exclude_none=True, exclude=set(DataSection.model_fields))
        task, own = recipe.task.in_small(own)
        files = {"train": str(parts["train"]), "evaluation": str(parts["validation"])}
        content = {
            "name": recipe.name,
            "seed": recipe.seed,
            "output": str(self.folder / "runs" / output),
            "task": task.model_dump(exclude_none=True),
            "model": {"name": str(model), "dtype": recipe.model.dtype},
            "data": {**own, **files},
            "method": recipe.method.model_dump(exclude_none=True),
            "train": _shortened(recipe),
        }
        return Miniature(Recipe.parse(content, where=output), parts["test"])

    def _model(self, recipe: Recipe) -> Path:
        section = recipe.model
        key = (recipe.task.auto_class, section.name, str(section.revision))
        if key not in self._models:
            folder = self.folder / "models" / str(len(self._models))
            folder.mkdir(parents=True)
            said = recipe.task.save_small_model(section, folder, self.widest)
            self.notes.append(f"model {section.name}: {said}")
            self._models[key] = folder
        return self._models[key]

    def _data(self, recipe: Recipe, validation_examples: int) -> tuple[dict[str, Path], int]:
        """Files of the parts, and how many examples the whole has to train on."""
        task, data = recipe.task, recipe.data
        key = json.dumps([task.name, data.model_dump(mode="json"), validation_examples], sort_keys=True)
        if key not in self._parts:
            source, missing = _source(data)
            if missing:
                made = task.made_up(_TRAIN + 2 * _HELD_OUT, data)
                rows = list(range(len(made)))
                held_out = {"validation": rows[:_HELD_OUT], "test": rows[_HELD_OUT : 2 * _HELD_OUT]}
                self._counts[key] = sys.maxsize  # nobody knows: there are enough
                parts = {name: made.subset(part) for name, part in {**held_out, "train": rows[2 * _HELD_OUT :]}.items()}
                self.notes.append(f"data {source}: {_TRAIN} made-up rows ({missing})")
            else:
                parts, self._counts[key] = _few(recipe, validation_examples)
                self.notes.append(f"data {source}: {len(parts['train'])} of their rows; all were read and checked")
            folder = self.folder / "data" / str(len(self._parts))
            folder.mkdir(parents=True)
            self._parts[key] = {name: task.write(part, folder / name, data) for name, part in parts.items()}
        return self._parts[key], self._counts[key]


def _source(data: DataSection) -> tuple[str, str]:
    """What the data are called, and why they are not had; nothing where they are."""
    if data.hub is not None:
        return " ".join(filter(None, (data.hub, data.subset))), "nothing is fetched from the hub"
    if data.embedded is not None:
        return data.embedded, ""
    files = data.files()
    missing = [file for file in files.values() if "*" not in file and not Path(file).exists()]
    return ", ".join(files.values()), f"there is no {missing[0]}" if missing else ""


def _few(recipe: Recipe, validation_examples: int) -> tuple[dict[str, Examples], int]:
    """Some rows of each part of data that are there, of which those that are held out go with those that are not.

    Beside them how many there are to train on.
    """
    found = load_data(recipe.task, recipe.data)
    whole = without_validation(found, recipe.data, validation_examples)[0] if validation_examples else found.train
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        train = whole.subset(stratified_split(whole, range(len(whole)), _TRAIN, 0)[0])
        targets = recipe.task.targets(train, recipe.data, "its first rows")
        held_out = found.evaluation if found.test is None else found.test
        rows = stratified_split(held_out, range(len(held_out)), _TRIED, 0)[0]
        kept = [row for row in rows if _goes_with(recipe.task, held_out.subset([row]), targets)][:_HELD_OUT]
    few = held_out.subset(kept) if kept else train
    return {"train": train, "validation": few, "test": few}, len(whole)


def _goes_with(task: Task, examples: Examples, targets: Mapping[str, Any]) -> bool:
    try:
        task.check(examples, targets, "a row")
    except UserError:
        return False
    return True


def _shortened(recipe: Recipe) -> dict[str, Any]:
    """The `train` section for two steps on a CPU, in as small a batch as the task takes."""
    whole = recipe.train.model_dump(exclude_none=True, exclude=_LEFT_OUT)
    short = {"max_steps": 2, "eval_batch_size": _HELD_OUT, "log_steps": 1, "device": "cpu", "precision": "fp32"}
    for size in sorted({4, 8, 16, recipe.train.batch_size}):
        batch = recipe.train.model_copy(update={"batch_size": size, "gradient_accumulation": 1})
        try:
            recipe.task.check_training(batch, _TRAIN, 1)
        except UserError:
            continue
        return {**whole, **short, "batch_size": size}
    return {**whole, **short}
