"""Tasks by name: a file each in this folder, and those that other packages register or declare."""

from __future__ import annotations

import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from structune.errors import UserError
from structune.section import closest
from structune.tasks.task import Task

GROUP = "structune.tasks"
"""The group of entry points in which a package declares a task: name = module:class."""

DEFAULT = "text-classification"
"""The task of a recipe that names none."""

_NO_TASKS = {"task", "registry"}

PLACES: dict[str, str] = {
    module.name.replace("_", "-"): f"{__package__}.{module.name}:{module.name.title().replace('_', '')}"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if not module.ispkg and module.name not in _NO_TASKS
}
"""Where the class of each task of the package is, as "module:class": text-classification is TextClassification of
text_classification. Read off the folder; nothing is imported."""

_registered: dict[str, type[Task]] = {}

AnyTask = TypeVar("AnyTask", bound=type[Task])


def register(task: AnyTask) -> AnyTask:
    """Make a task known under its `name`; usable as a class decorator.

    Raises:
        ValueError: another task has that name.
    """
    name = task_name(task)
    if name in PLACES or _registered.get(name, task).__qualname__ != task.__qualname__:
        raise ValueError(f"task name {name!r} is taken: choose another")
    _registered[name] = task
    return task


def get(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        UserError: there is none, or it is another package's and cannot be imported.
    """
    if name in PLACES:
        found: type[Task] = pkgutil.resolve_name(PLACES[name])
        return found
    if name in _registered:
        return _registered[name]
    declared = {point.name: point for point in entry_points(group=GROUP)}
    if name not in declared:
        known = [*PLACES, *_registered, *declared]
        raise UserError(f"task = {name!r}: unknown{closest(name, known)}; known: {', '.join(known)}")
    try:
        loaded = declared[name].load()
        if not (isinstance(loaded, type) and issubclass(loaded, Task) and task_name(loaded) == name):
            raise TypeError(f"{declared[name].value} is no task of that name")
    except Exception as error:  # noqa: BLE001  (whatever another package raises)
        raise UserError(f"task = {name!r}: {declared[name].value} cannot be had ({error}); mend that package") from None
    return loaded


def names() -> list[str]:
    """The names of all tasks, those of the package first."""
    return list(dict.fromkeys([*PLACES, *_registered, *(point.name for point in entry_points(group=GROUP))]))


def task_name(task: type[Task]) -> str:
    """The name by which a recipe asks for it."""
    return str(task.model_fields["name"].default)
