"""Families by name."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from structune.lazy import plain_attribute
from structune.structures import families

if TYPE_CHECKING:
    from structune.structures.base import Structure

Family = TypeVar("Family", bound="type[Structure]")


def class_name(name: str) -> str:
    """How the class of the family `name` is called: toeplitz_like, ToeplitzLike."""
    return "".join(word.capitalize() for word in name.split("_"))


PLACES: dict[str, str] = {
    module.name: f"{families.__name__}.{module.name}:{class_name(module.name)}"
    for module in pkgutil.iter_modules(families.__path__)
}
"""Where the class of each family of the package is, as "module:class"; read off the folder, and nothing is imported."""

_families: dict[str, type[Structure] | str] = dict(PLACES)
"""Each family's class, or until someone asks for it, its place."""


def register(family: Family) -> Family:
    """Make a family known under its `name`; usable as a class decorator.

    Raises:
        ValueError: another family has that name.
    """
    if _families.get(family.name) in (None, f"{family.__module__}:{family.__qualname__}"):
        _families[family.name] = family
    elif get(family.name) is not family:
        raise ValueError(f"structure name {family.name!r} is taken by {get(family.name).__qualname__}: choose another")
    return family


def get(name: str) -> type[Structure]:
    """The family registered as `name`; call it with rows, cols and the family's own options.

    Raises:
        ValueError: no family has that name; the message lists those that are known.
    """
    family = _find(name)
    if isinstance(family, str):
        family = _families[name] = pkgutil.resolve_name(family)
    return family


def declared(name: str, attribute: str) -> Any:
    """What the family registered as `name` says of itself in a plain number or text, its `learning_rate` for example.

    It is read off the family's file where nobody has asked for the family yet: neither it nor torch is imported.

    Raises:
        ValueError: no family has that name.
    """
    family = _find(name)
    return plain_attribute(family, attribute) if isinstance(family, str) else getattr(family, attribute)


def _find(name: str) -> type[Structure] | str:
    if not isinstance(name, str) or name not in _families:
        close = get_close_matches(str(name), _families, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"structure={name!r} is unknown: {hint}known are {', '.join(_families)}")
    return _families[name]


def names() -> tuple[str, ...]:
    """The names of all families, those of the package first."""
    return tuple(_families)
