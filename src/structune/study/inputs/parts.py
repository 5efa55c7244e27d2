"""The parts of a task's data, which all runs of a study read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structune.data.section import DataSection
from structune.finetune.task_data import load_data, without_validation
from structune.study.study_file import TaskSection


class Parts:
    """The three parts of a task's data, as files, made when they are first needed."""

    def __init__(self, folder: Path, task: TaskSection) -> None:
        self.folder, self.task = folder, task
        self._files: dict[str, Path] = {}
        self._counts: dict[str, int] = {}

    def file(self, part: str) -> Path:
        """The file of the part `train`, `validation` or `test`. Raises `UserError` where the data leave one empty."""
        if not self._files:
            recipe = self.task.recipe(str(self.folder))
            data, section = load_data(recipe.task, recipe.data), recipe.data
            train, validation = without_validation(data, section, self.task.validation_examples)
            parts = {"train": train, "validation": validation, "test": data.evaluation}
            self._counts = {name: len(examples) for name, examples in parts.items()}
            self._files = {
                name: recipe.task.write(examples, self.folder / name, section) for name, examples in parts.items()
            }
        return self._files[part]

    def count(self, part: str) -> int:
        """How many examples the part has."""
        self.file(part)
        return self._counts[part]

    def section(self) -> dict[str, Any]:
        """The `data` section of a run's recipe: trained on one part, evaluated on the validation part."""
        files = {"train": str(self.file("train")), "evaluation": str(self.file("validation"))}
        own = {key: value for key, value in self.task.data.items() if key not in DataSection.model_fields}
        return {**files, **own}
