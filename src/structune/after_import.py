"""Doing something once another library is imported, now or later, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["after_import"]


def after_import(library: str, action: Callable[[], object]) -> None:
    """Call `action` when `library` is imported: at once if it is, else at the end of its import.

    The action runs before any import statement of the library returns, in whatever thread: whoever has the library
    finds done what the action does. What the action raises, the import raises.

    Args:
        library: full name of a module.
        action: it may import the library. Whoever reloads the library has it called again.
    """
    if library in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(library, action))


class _Finder(MetaPathFinder):
    """Finds one module where all others find it. It stays: to look a module up is not yet to import it."""

    def __init__(self, library: str, action: Callable[[], object]) -> None:
        self.library = library
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.library:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.action)
        return spec


class _Loader(Loader):
    """The module's own loader until the module runs; then the module gets it back."""

    def __init__(self, loader: Any, action: Callable[[], object]) -> None:
        self.loader = loader
        self.action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        spec.loader = self.loader  # some loaders look for themselves here
        try:
            module: ModuleType | None = self.loader.create_module(spec)
        finally:
            spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.action()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)
