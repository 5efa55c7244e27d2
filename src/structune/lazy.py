"""Packages whose contents are imported when they are asked for, and what can be known of them before."""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any


def lazy(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of a package: each name is imported from its place when first asked for.

    Args:
        package: full name of the package.
        places: "module:attribute", or "module" for a module itself, by name.
    """

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = pkgutil.resolve_name(places[name])
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return find, names


def plain_attribute(place: str, name: str) -> Any:
    """A class's attribute, read off its source where it is written there as a plain number or text.

    It is looked for in the class, then in its base, and so on. The class is imported where that leads nowhere: there is
    no source, more than one base, or a value that has to be worked out.

    Args:
        place: "module:class".
        name: of the attribute.

    Raises:
        AttributeError: the class has none of that name.
    """
    try:
        module, class_name = place.split(":")
        return _written(module, class_name, name)
    except LookupError:
        return getattr(pkgutil.resolve_name(place), name)


def _written(module: str, class_name: str, name: str) -> Any:
    """Raises LookupError where only an import can tell."""
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    if class_name in loaded:
        return getattr(loaded[class_name], name)
    tree = _tree(module)
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    definition = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    if definition is None:  # a package passes it on from where it is defined
        return _written(*imported[class_name], name)
    for node in definition.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in _names(node):
            return _value(node.value)
    if len(definition.bases) != 1 or not isinstance(base := definition.bases[0], ast.Name):
        raise LookupError(f"{class_name} has no single base by name")
    return _written(*imported.get(base.id, (module, base.id)), name)


def _names(assignment: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda module: None)(module)
    if source is None:
        raise LookupError(f"{module} has no source")
    return ast.parse(source)


def _value(expression: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(expression or ast.Name(""))
    except ValueError as error:
        raise LookupError("it has to be worked out") from error
