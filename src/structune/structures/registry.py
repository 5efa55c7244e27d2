"""Families by name: those of the package, those that installed distributions declare, and those registered since."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from structune.lazy import plain_attribute
from structune.structures import families, installed

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


OWN = "structune"
"""What the package's own families are told to be of."""


@dataclass(frozen=True)
class Place:
    """Where the class of a family is that nobody has asked for yet.

    Args:
        of: "module:class".
        distribution: name and version of what declares it.
        problem: why it cannot be had, if that is known; what is said to whoever asks.
    """

    of: str
    distribution: str = OWN
    problem: str = ""

    def is_of(self, family: type[Structure]) -> bool:
        """Whether the class may be what is meant; packages pass classes on from where they are defined."""
        return family.__module__.partition(".")[0] == self.of.partition(":")[0].partition(".")[0]


_families: dict[str, type[Structure] | Place] = {name: Place(place) for name, place in PLACES.items()}
"""Each family's class, or until someone asks for it, its place."""

_looked = False
"""Whether installed distributions were looked at."""


def register(family: Family) -> Family:
    """Make a family known under its `name`; usable as a class decorator.

    Raises:
        ValueError: the name is none, or another family has it.
    """
    name = family.name
    if wrong := _wrong_name(name):
        raise ValueError(f"structure name {name!r} {wrong}")
    _look_around()
    known = _families.get(name)
    if known is None or (isinstance(known, Place) and known.is_of(family)):
        if known is None or not known.problem:  # whoever asks by name is told of a problem, and nobody else
            _families[name] = family
    elif get(name) is not family:
        raise ValueError(f"structure name {name!r} is taken by {get(name).__qualname__}: choose another")
    return family


def get(name: str) -> type[Structure]:
    """The family registered as `name`; call it with rows, cols and the family's own options.

    Raises:
        ValueError: no family has that name, several have it, or it is another distribution's and cannot be had; the
            message says which are known, or what to do.
    """
    found = _find(name)
    if not isinstance(found, Place):
        return found
    cause: Exception | None = None
    try:
        family: Any = pkgutil.resolve_name(found.of)
        problem = _wrong_family(family, name)
    except Exception as error:
        if found.distribution == OWN:
            raise
        cause, problem = error, f"cannot be imported ({type(error).__name__}: {error})"
    if problem:
        problem = f"is {found.of} of {found.distribution}, which {problem}: mend or uninstall it"
        _families[name] = replace(found, problem=problem)  # so that nobody waits for the same failure again
        raise ValueError(f"structure={name!r} {problem}") from cause
    _families[name] = family
    return family


def is_registered(family: type[Structure]) -> bool:
    """Whether `get` gives this very class for its name. Nothing is looked for, so compiled programs may ask."""
    return _families.get(family.name) is family


def check(name: str) -> None:
    """Raise ValueError unless a family has that name, as `get` does, but without importing it."""
    _find(name)


def declared(name: str, attribute: str) -> Any:
    """What the family registered as `name` says of itself in a plain number or text, its `learning_rate` for example.

    It is read off the family's file where nobody has asked for the family yet: neither it nor torch is imported.

    Raises:
        ValueError: as for `get`.
    """
    found = _find(name)
    if not isinstance(found, Place):
        return getattr(found, attribute)
    try:
        return plain_attribute(found.of, attribute)
    except Exception:  # noqa: BLE001 (whatever stands there: `get` says what is wrong)
        return getattr(get(name), attribute)


def names() -> tuple[str, ...]:
    """The names of all families, those of the package first."""
    _look_around()
    return tuple(_families)


def usable() -> Iterator[type[Structure]]:
    """All families, but for those of other distributions that cannot be imported."""
    for name in names():
        try:
            yield get(name)
        except ValueError:
            continue


def _look_around() -> None:
    """Once, make known what installed distributions declare."""
    global _looked  # no functools.cache: compilers trace what it wraps
    if _looked:
        return
    _looked = True
    for name, place, distribution in installed.declarations():
        new = Place(place, distribution, _wrong_name(name))
        known = _families.setdefault(name, new)
        if isinstance(known, Place) and known != new:
            both = f"{known.distribution} and {distribution}"
            problem = f"is what families of two distributions are called, {both}: uninstall one of them"
            _families[name] = replace(known, problem=problem)


def _find(name: str) -> type[Structure] | Place:
    _look_around()
    if not isinstance(name, str) or name not in _families:
        close = get_close_matches(str(name), _families, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"structure={name!r} is unknown: {hint}known are {', '.join(_families)}, and those of packages that are "
            f"installed and declare them in the entry points {installed.GROUP}"
        )
    found = _families[name]
    if isinstance(found, Place) and found.problem:
        raise ValueError(f"structure={name!r} {found.problem}")
    return found


def _wrong_name(name: object) -> str:
    """What is wrong with a name; nothing if it is one that recipes, files and figures can hold."""
    right = isinstance(name, str) and re.fullmatch("[a-z][a-z0-9_]*", name)
    return "" if right else "is no name: take small letters, digits and _, as in toeplitz_like"


def _wrong_family(family: Any, name: str) -> str:
    """What is wrong with what a place holds; nothing if it is the family of that name."""
    from structune.structures.base import Structure

    if not isinstance(family, type) or not issubclass(family, Structure):
        return "is no class derived from structune.structures.Structure"
    if inspect.isabstract(family):
        return f"does not define {' and '.join(sorted(family.__abstractmethods__))}"
    if getattr(family, "name", None) != name:
        return f"calls itself {getattr(family, 'name', None)!r}, not as its entry point does"
    try:
        family.own_options()
    except TypeError as error:
        return f"is not whole ({error})"
    return ""
