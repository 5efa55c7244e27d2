"""Tasks by name: a file each in this folder, those that are registered, and entry points of `structune.tasks`."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from structune.registry import Registry
from structune.tasks.task import Task

DEFAULT = "text-classification"
"""The task of a recipe that names none."""

_NO_TASKS = {"task", "registry"}

PLACES: dict[str, str] = {
    module.name.replace("_", "-"): f"{__package__}.{module.name}:{module.name.title().replace('_', '')}"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if not module.ispkg and module.name not in _NO_TASKS
}
"""Where the class of each task of the package is: text-classification is TextClassification of text_classification.
Read off the folder; nothing is imported."""

TASKS = Registry[Task]("task", Task, PLACES, key="task")

register, get, names = TASKS.register, TASKS.get, TASKS.names
