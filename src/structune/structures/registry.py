"""Families by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TypeVar

from structune.structures.base import Structure

_families: dict[str, type[Structure]] = {}

Family = TypeVar("Family", bound=type[Structure])


def register(family: Family) -> Family:
    """Make a family known under its `name`; usable as a class decorator.

    Raises:
        ValueError: another family has that name.
    """
    if _families.setdefault(family.name, family) is not family:
        raise ValueError(
            f"structure name {family.name!r} is taken by {_families[family.name].__qualname__}: choose another"
        )
    return family


def get(name: str) -> type[Structure]:
    """The family registered as `name`; call it with rows, cols and, for the ranked families, rank.

    Raises:
        ValueError: no family has that name; the message lists those that are known.
    """
    if not isinstance(name, str) or name not in _families:
        close = get_close_matches(str(name), _families, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"structure={name!r} is unknown: {hint}known are {', '.join(_families)}")
    return _families[name]


def names() -> tuple[str, ...]:
    """The names of all registered families, in order of registration."""
    return tuple(_families)
