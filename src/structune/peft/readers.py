"""Modules that read the weight of a layer below them, as `F.linear(x, self.qkv.weight)` does, whoever wrote them."""

from __future__ import annotations

import ast
import inspect
import linecache
from functools import cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from torch import nn

Path = tuple[str, ...]
"""Names from a module to one below it; "*" is any one of a list."""

NOT_VALUES = frozenset(
    (
        *("dtype", "device", "layout", "shape", "size", "dim", "ndim", "numel", "stride", "storage", "untyped_storage"),
        *("grad", "requires_grad", "data_ptr", "element_size", "is_meta", "is_cuda", "is_leaf", "is_contiguous"),
        *("is_floating_point", "is_complex"),
    )
)
"""What may be asked of a weight without its numbers."""


class Reads(NamedTuple):
    """What the code of a class does with the layers below it."""

    weights: frozenset[Path]
    """Of these it reads the weight's numbers."""

    calls: frozenset[Path]
    """These it calls."""


def use_of_weight(model: nn.Module, name: str, layer: nn.Module) -> tuple[bool, bool]:
    """Whether a module around a layer reads its weight's numbers, and whether one calls it, as far as code shows.

    A layer whose weight is not seen to be read counts as called.

    Writing (`.data.normal_()`, `init.zeros_`), tying (`self.head.weight = …`) and asking for a dtype or a size are no
    reading of numbers.

    Args:
        model: the whole model.
        name: the layer's, in the model or in a wrapper around it.
        layer: that is there.
    """
    parts = name.split(".")
    while parts and not _is_at(model, parts, layer):
        del parts[0]  # of a wrapper
    read = called = False
    for depth in range(len(parts)):
        module: Any = model.get_submodule(".".join(parts[:depth]))
        below = tuple(part for part in parts[depth:] if part != "base_layer")
        own = _function(vars(module).get("forward"))
        kind: Any = type(module)
        reads = _reads(kind, None if own is None else own.__code__)
        read = read or any(_matches(path, below) for path in reads.weights)
        called = called or any(_matches(path, below) for path in reads.calls)
    return read, called or not read


def _is_at(model: nn.Module, names: list[str], layer: nn.Module) -> bool:
    """Whether these names lead to the layer: wrappers and models have some in common, such as `base_model`."""
    try:
        return model.get_submodule(".".join(names)) is layer
    except AttributeError:
        return False


def _matches(path: Path, names: Path) -> bool:
    return len(path) == len(names) and all(part in ("*", name) for part, name in zip(path, names, strict=True))


@cache
def _reads(cls: Any, forward: CodeType | None) -> Reads:
    """What the methods of a class, and a forward that was put into a module of it, read and call."""
    methods = [value for base in cls.__mro__ if base not in nn.Module.__mro__ for value in vars(base).values()]
    functions = [function for method in methods if (function := _function(method)) is not None]
    codes = {function.__code__ for function in functions if function.__name__ != "__init__"} | {forward}
    weights = frozenset().union(
        *(reading.weights for code in codes if _mentions_weight(code) for reading in _read(code))
    )
    calls = frozenset().union(*(reading.calls for code in codes if weights for reading in _read(code)))
    return Reads(weights, calls)


def _mentions_weight(code: CodeType | None) -> bool:
    """Whether it is worth while to look for the code's source."""
    if code is None:
        return False
    return "weight" in code.co_names or any(_mentions_weight(c) for c in code.co_consts if isinstance(c, CodeType))


@cache
def _read(code: CodeType | None) -> tuple[_Reading, ...]:
    node = None if code is None else _source(code)
    return () if node is None else (_Reading(node),)


def _function(method: Any) -> FunctionType | None:
    """The Python function behind a method, property or decorator, if there is one."""
    method = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
    method = inspect.unwrap(method) if callable(method) else method
    method = getattr(method, "__func__", method)
    return method if isinstance(method, FunctionType) else None


def _source(code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """A function's definition, where its file is there to be read."""
    return _definitions(code.co_filename).get((code.co_name, code.co_firstlineno))


@cache
def _definitions(filename: str) -> dict[tuple[str, int], ast.FunctionDef | ast.AsyncFunctionDef]:
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return {}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name, first] = node
    return found


class _Reading:
    """One method: the paths whose weight it reads, and those that it calls or hands on."""

    def __init__(self, method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.paths: dict[str, set[Path]] = {argument.arg: {()} for argument in method.args.args[:1]}
        self.parents = {child: node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(method):
            if isinstance(node, (ast.Assign, ast.For, ast.comprehension)):
                self._name(node)
        self.weights: set[Path] = set()
        self.calls: set[Path] = set()
        for node in self.parents:
            if isinstance(node, ast.Attribute) and node.attr == "weight" and self._is_value(node):
                self.weights |= self._of(node.value) - {()}
            if isinstance(node, (ast.Attribute, ast.Subscript, ast.Name)) and not self._is_part(node):
                self.calls |= self._of(node) - {()}

    def _name(self, node: ast.Assign | ast.For | ast.comprehension) -> None:
        """Take note of what local names stand for: layers of a list, and modules with a short name."""
        if isinstance(node, ast.Assign):
            pairs = [(target, self._of(node.value)) for target in node.targets]
        else:
            sources, target = [node.iter], node.target
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name):
                sources = node.iter.args
                targets = targets[1:] if node.iter.func.id == "enumerate" else targets
            pairs = [(t, {(*path, "*") for path in self._of(s)}) for t, s in zip(targets, sources, strict=False)]
        for target, paths in pairs:
            if isinstance(target, ast.Name):
                self.paths.setdefault(target.id, set()).update(paths)

    def _of(self, node: ast.AST) -> set[Path]:
        """What an expression may stand for."""
        if isinstance(node, ast.Name):
            return self.paths.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self._of(node.value)}
        if isinstance(node, ast.Subscript):
            return {(*path, "*") for path in self._of(node.value)}
        return set()

    def _is_part(self, node: ast.AST) -> bool:
        """Whether only something of it is taken."""
        parent = self.parents[node]
        return isinstance(parent, (ast.Attribute, ast.Subscript, ast.Assign)) or parent not in self.parents

    def _is_value(self, node: ast.AST) -> bool:
        """Whether the numbers of a tensor are read here."""
        parent = self.parents[node]
        if not isinstance(getattr(node, "ctx", None), ast.Load):
            return False
        if isinstance(parent, ast.keyword):
            node, parent = parent, self.parents[parent]
        if isinstance(parent, ast.Attribute):
            if parent.attr == "data":
                return self._is_value(parent)
            return parent.attr not in NOT_VALUES and not parent.attr.endswith("_")
        if isinstance(parent, ast.Subscript):
            return isinstance(parent.ctx, ast.Load)
        if isinstance(parent, ast.Assign):
            return not any(isinstance(target, ast.Attribute) for target in parent.targets)
        if isinstance(parent, ast.Compare):
            return not all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
        if isinstance(parent, ast.Call) and node is not parent.func:
            called = getattr(parent.func, "attr", getattr(parent.func, "id", ""))
            return not called.endswith("_") and called not in ("isinstance", "hasattr", "getattr", "id", "type")
        return True
