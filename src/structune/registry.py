"""Kinds of sections by their `name`: the package's own, those that are registered, and those that packages declare."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from structune.errors import UserError
from structune.section import Section, closest

Kind = TypeVar("Kind", bound=Section)
Own = TypeVar("Own", bound=Section)


def section_name(section: type[Section]) -> str:
    """The name by which a recipe asks for it: the default of its field `name`."""
    return str(section.model_fields["name"].default)


class Registry(Generic[Kind]):
    """Classes of one kind by name. Another package declares its own as entry points, name = module:class.

    Args:
        kind: what they are, in one word; entry points are in the group `structune.` and its plural.
        base: the class that they derive from.
        places: "module:class" of each of the package, by name; a module is imported when it is asked for.
        key: of a recipe that asks for one.
    """

    def __init__(self, kind: str, base: type[Any], places: Mapping[str, str], key: str) -> None:
        self.kind, self.base, self.places, self.key = kind, base, places, key
        self._registered: dict[str, type[Kind]] = {}

    def register(self, section: type[Own]) -> type[Own]:
        """Make a class known under its `name`; usable as a class decorator.

        Raises:
            TypeError: it is not of this kind.
            ValueError: another one has that name.
        """
        if not self._fits(section):
            raise TypeError(f"{section!r} is no {self.kind}: derive it from {self.base.__qualname__}")
        name = section_name(section)
        if name in self.places or self._registered.get(name, section).__qualname__ != section.__qualname__:
            raise ValueError(f"{self.kind} name {name!r} is taken: choose another")
        self._registered[name] = cast("type[Kind]", section)
        return section

    def get(self, name: str) -> type[Kind]:
        """The class of that name.

        Raises:
            UserError: there is none, or it is another package's and cannot be imported.
        """
        if name in self.places:
            found: type[Kind] = pkgutil.resolve_name(self.places[name])
            return found
        if name in self._registered:
            return self._registered[name]
        declared = self.declared()
        if name not in declared:
            known = self.names()
            raise UserError(f"{self.key} = {name!r}: unknown{closest(name, known)}; known: {', '.join(known)}")
        place = declared[name]
        try:
            loaded = place.load()
            if not (self._fits(loaded) and section_name(loaded) == name):
                raise TypeError(f"{place.value} is no {self.kind} of that name")
        except Exception as error:  # noqa: BLE001  (whatever another package raises)
            reason = f"{place.value} cannot be had ({error}); mend that package"
            raise UserError(f"{self.kind} = {name!r}: {reason}") from None
        return cast("type[Kind]", loaded)

    def here(self) -> dict[str, type[Kind]]:
        """The package's own and the registered ones by name, imported."""
        return {name: self.get(name) for name in (*self.places, *self._registered)}

    def names(self) -> list[str]:
        """All names, those of the package first."""
        return list(dict.fromkeys([*self.places, *self._registered, *self.declared()]))

    def declared(self) -> dict[str, EntryPoint]:
        """Those of installed distributions, not imported."""
        return {point.name: point for point in entry_points(group=f"structune.{self.kind}s")}

    def _fits(self, section: Any) -> bool:
        return isinstance(section, type) and issubclass(section, self.base)
