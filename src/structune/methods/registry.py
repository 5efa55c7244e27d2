"""Methods by name: a file each in this folder, and those that other packages register or declare."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, Union

from pydantic import Field

from structune.errors import UserError
from structune.methods.method import Method
from structune.section import closest

GROUP = "structune.methods"
"""The group of entry points in which a package declares a method: name = module:class."""

_NO_METHODS = {"method", "palette", "registry", "update"}


_registered: dict[str, type[Method]] = {}

SomeMethod = TypeVar("SomeMethod", bound=type[Method])


def method_name(method: type[Method]) -> str:
    """The name by which a recipe asks for it."""
    return str(method.model_fields["name"].default)


def _is_method(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Method)


@cache
def ours() -> dict[str, type[Method]]:
    """The methods of the package by name, read off the folder."""
    found: dict[str, type[Method]] = {}
    for each in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if each.name not in _NO_METHODS:
            module = import_module(f"{__package__}.{each.name}")
            own = [cls for cls in vars(module).values() if _is_method(cls) and cls.__module__ == module.__name__]
            found |= {method_name(cls): cls for cls in own}
    return found


if TYPE_CHECKING:
    OurMethod = Method
else:
    OurMethod = Annotated[Union[tuple(ours().values())], Field(discriminator="name")]  # noqa: UP007  (of a tuple)
"""The section of any method of the package; its `name` says which."""


def register(method: SomeMethod) -> SomeMethod:
    """Make a method known under its `name`; usable as a class decorator.

    Raises:
        ValueError: another method has that name.
    """
    name = method_name(method)
    if name in ours() or _registered.get(name, method).__qualname__ != method.__qualname__:
        raise ValueError(f"method name {name!r} is taken: choose another")
    _registered[name] = method
    return method


def get(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UserError: there is none, or it is another package's and cannot be imported.
    """
    known = ours() | _registered
    if name in known:
        return known[name]
    declared = {point.name: point for point in entry_points(group=GROUP)}
    if name not in declared:
        raise UserError(f"method.name = {name!r}: unknown{closest(name, names())}; known: {', '.join(names())}")
    try:
        loaded = declared[name].load()
        if not (_is_method(loaded) and method_name(loaded) == name):
            raise TypeError(f"{declared[name].value} is no method of that name")
    except Exception as error:  # noqa: BLE001  (whatever another package raises)
        raise UserError(
            f"method = {name!r}: {declared[name].value} cannot be had ({error}); mend that package"
        ) from None
    found: type[Method] = loaded
    return found


def preset(name: str) -> Method:
    """The section with this short name; `_` and `-` are the same.

    Raises:
        UserError: no method has such a preset, or the method cannot be had.
    """
    key = name.strip().lower().replace("_", "-")
    for method in (ours() | _registered).values():
        presets = method.presets()
        if key in presets:
            return presets[key]
    for point in entry_points(group=GROUP):
        if point.name.replace("_", "-") == key:
            return get(point.name).model_validate({})
    known = preset_names()
    raise UserError(f"method {name!r}: unknown{closest(key, known)}; known: {', '.join(known)}")


def preset_names() -> list[str]:
    """The short names of all presets."""
    return [name for method in (ours() | _registered).values() for name in method.presets()]


def names() -> list[str]:
    """The names of all methods, those of the package first."""
    return list(dict.fromkeys([*ours(), *_registered, *(point.name for point in entry_points(group=GROUP))]))


def look(method: str) -> tuple[str, str] | None:
    """Colour and marker of a method by its short name, or by what that begins with; None: there is no such method."""
    key = method.replace("-", "_")
    named = {name: cls for name, cls in (ours() | _registered).items() if key == name or key.startswith(f"{name}_")}
    if not named:
        return None
    closest_one = named[max(named, key=len)]
    return closest_one.colour, closest_one.marker
