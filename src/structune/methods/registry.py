"""Methods by name: a file each in this folder, those that are registered, and entry points of `structune.methods`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from structune.errors import UserError
from structune.methods.method import Method
from structune.registry import Registry, section_name
from structune.section import closest

_NO_METHODS = {"method", "parts", "registry", "update"}


def _read_off_folder() -> list[type[Method]]:
    """The methods of the package."""
    found: list[type[Method]] = []
    for each in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if each.name not in _NO_METHODS:
            module = import_module(f"{__package__}.{each.name}")
            classes = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, Method)]
            found += [cls for cls in classes if cls.__module__ == module.__name__]
    return found


_OURS = _read_off_folder()

if TYPE_CHECKING:
    OurMethod = Method
else:
    OurMethod = Annotated[Union[tuple(_OURS)], Field(discriminator="name")]  # noqa: UP007  (of a tuple)
"""The section of any method of the package; its `name` says which."""

METHODS = Registry[Method](
    "method", Method, {section_name(cls): f"{cls.__module__}:{cls.__qualname__}" for cls in _OURS}, key="method.name"
)

register, get, names = METHODS.register, METHODS.get, METHODS.names


def preset(name: str) -> Method:
    """The section with this short name; `_` and `-` are the same.

    Raises:
        UserError: no method has such a preset, or the method cannot be had.
    """
    key = name.strip().lower().replace("_", "-")
    for method in METHODS.here().values():
        presets = method.presets()
        if key in presets:
            return presets[key]
    for declared in METHODS.declared():
        if declared.replace("_", "-") == key:
            return get(declared).model_validate({})
    known = preset_names()
    raise UserError(f"method {name!r}: unknown{closest(key, known)}; known: {', '.join(known)}")


def preset_names() -> list[str]:
    """The short names of all presets."""
    return [name for method in METHODS.here().values() for name in method.presets()]


def look(method: str) -> tuple[str, str] | None:
    """Colour and marker of a method by its short name, or by what that begins with; None: there is no such method."""
    key = method.replace("-", "_")
    named = {name: cls for name, cls in METHODS.here().items() if key == name or key.startswith(f"{name}_")}
    if not named:
        return None
    closest_one = named[max(named, key=len)]
    return closest_one.colour, closest_one.marker
