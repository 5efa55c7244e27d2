"""Classes: one label to an example, from the words in a column to numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from structune.errors import UserError
from structune.tasks.parts.classes.no_classes import refuse_other_tasks

CLASS_FIGURES = ("confusion.png", "calibration.png")
"""What is drawn of answers that are classes."""


def label_names(labels: Sequence[str], source: str, column: str) -> list[str]:
    """The classes in a fixed order: whole numbers by value, anything else by name.

    Raises:
        UserError: one class only, nearly as many classes as rows, several classes a row, or scores.
    """
    refuse_other_tasks(labels, source, column)
    names = set(labels)
    if len(names) == 1:
        raise UserError(
            f"data.label = {column!r}: every row of {source} has the label {labels[0]!r}; "
            f"classification needs two or more"
        )
    if len(names) > max(20, len(labels) // 4):
        shown = ", ".join(repr(name[:30]) for name in sorted(names)[:4])
        raise UserError(
            f"data.label = {column!r}: {len(names)} different labels in {len(labels)} rows of {source} ({shown}, ...); "
            f"that looks like another column than the label. Set data.label to the column of classes."
        )
    return in_order(names)


def in_order(names: Collection[str]) -> list[str]:
    """Whole numbers by value, anything else by name after them."""
    return sorted(names, key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))


def are_class_names(content: Any) -> bool:
    """Whether JSON that was read back may be targets with names of classes (`classes`)."""
    names = content.get("classes") if isinstance(content, dict) else None
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)


def check_labels(labels: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raises `UserError` when a label is not among the training data's names."""
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise UserError(
            f"{source}: the label {', '.join(map(repr, unknown[:5]))} is not in the training data, which has "
            f"{', '.join(map(repr, list(names)[:20]))}. Check its spelling and case, or add training examples of it."
        )


def check_trained(labels: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raises `UserError` when no example of a class is left to train on."""
    there = set(labels)
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{source}: no example of the label {', '.join(map(repr, missing[:5]))} is left to train on; "
            f"give more examples of it, or hold out fewer"
        )


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
