"""What the `datasets` library knows of columns: the names of classes behind their numbers."""

from __future__ import annotations

from typing import Any

UNLABELLED = object()
"""Instead of a class number that says that there is none."""


def named(value: Any, feature: Any) -> Any:
    """The value of a cell; class numbers, in lists too, as their names."""
    if (names := getattr(feature, "names", None)) is not None:
        return names[int(value)] if value is not None and int(value) >= 0 else UNLABELLED
    if value is not None and (names := getattr(getattr(feature, "feature", None), "names", None)) is not None:
        return [names[int(number)] if int(number) >= 0 else None for number in value]
    return value
