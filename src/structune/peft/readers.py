"""Modules that read the weight of a layer below them, as `F.linear(x, self.qkv.weight)` does, whoever wrote them."""

from __future__ import annotations

import ast
import inspect
import linecache
from functools import cache
from types import CodeType, FunctionType
from typing import Any, TypeAlias

import torch
from torch import nn

Path = tuple[str, ...]
"""Names from a module to one below it; "*" is any one of a list."""

Items: TypeAlias = "set[Path] | list[Items]"
"""What the items of an iterable stand for; a list where each is several things."""

NOT_VALUES = frozenset(
    (
        *("dtype", "device", "layout", "shape", "size", "dim", "ndim", "numel", "stride", "storage", "untyped_storage"),
        *("grad", "requires_grad", "data_ptr", "element_size", "get_device", "itemsize", "nbytes", "result_type"),
        *("isinstance", "hasattr", "getattr", "id", "type", "len"),
    )
)
"""What may be asked of a weight without its numbers, beside what begins with `is_` or `new_`."""

LIKE = frozenset(name for name in (*dir(torch), *dir(torch.Tensor)) if name.endswith(("_like", "_as")))
"""PyTorch's functions that take only dtype, device or shape of a tensor that they are given, as `x.type_as(w)`."""

LOOKED_THROUGH = ("getattr", "hasattr", "isinstance", "enumerate", "zip", "list", "tuple", "iter", "next", "reversed")
"""Functions that call no module that they are given."""


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
    around = []
    for depth in range(len(parts)):
        module: Any = model.get_submodule(".".join(parts[:depth]))
        below = tuple(part for part in parts[depth:] if part != "base_layer")
        own = _function(vars(module).get("forward"))
        kind: Any = type(module)
        codes = _codes(kind) | {None if own is None else own.__code__}
        around.append((codes, below))
    read = any(_matches(path, below) for codes, below in around for code in codes for path in _weights(code))
    called = not read or any(
        _matches(path, below) for codes, below in around for code in codes for path in _calls(code)
    )
    return read, called


def _is_at(model: nn.Module, names: list[str], layer: nn.Module) -> bool:
    """Whether these names lead to the layer: wrappers and models have some in common, such as `base_model`."""
    try:
        return model.get_submodule(".".join(names)) is layer
    except AttributeError:
        return False


def _matches(path: Path, names: Path) -> bool:
    return len(path) == len(names) and all(part in ("*", name) for part, name in zip(path, names, strict=True))


@cache
def _codes(cls: Any) -> frozenset[CodeType | None]:
    """The methods of a class; a list of modules has none that call them."""
    containers = (*nn.Module.__mro__, nn.ModuleList, nn.ModuleDict)
    methods = [value for base in cls.__mro__ if base not in containers for value in vars(base).values()]
    functions = [function for method in methods if (function := _function(method)) is not None]
    return frozenset(function.__code__ for function in functions if function.__name__ != "__init__")


@cache
def _weights(code: CodeType | None) -> set[Path]:
    """The layers whose weight's numbers a method reads."""
    reading = _read(code) if _mentions_weight(code) else None
    return set() if reading is None else reading.weights


@cache
def _calls(code: CodeType | None) -> set[Path]:
    """The layers that a method calls or hands on."""
    reading = _read(code)
    return set() if reading is None else reading.calls


def _mentions_weight(code: CodeType | None) -> bool:
    """Whether it is worth while to look for the code's source."""
    if code is None:
        return False
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return "weight" in code.co_names or "weight" in code.co_consts or any(map(_mentions_weight, inner))


@cache
def _read(code: CodeType | None) -> _Reading | None:
    node = None if code is None else _source(code)
    return None if node is None else _Reading(node)


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
            if isinstance(node, ast.Assign):
                parts = node.value.elts if isinstance(node.value, ast.Tuple) else None
                for target in node.targets:
                    self._name(target, self._of(node.value) if parts is None else [self._of(part) for part in parts])
            elif isinstance(node, (ast.NamedExpr, ast.AnnAssign)) and node.value is not None:
                self._name(node.target, self._of(node.value))
            elif isinstance(node, (ast.For, ast.comprehension)):
                self._name(node.target, self._items(node.iter))
        self.weights: set[Path] = set()
        self.calls: set[Path] = set()
        for node in self.parents:
            owner = self._owner(node, "weight")
            if owner is not None and self._is_value(node):
                self.weights |= self._of(owner) - {()}
            if not self._is_part(node):
                self.calls |= self._of(node) - {()}

    def _name(self, target: ast.expr, stands_for: Items) -> None:
        """Take note of what local names stand for: layers of a list, and modules with a short name."""
        if isinstance(target, ast.Name) and isinstance(stands_for, set):
            self.paths.setdefault(target.id, set()).update(stands_for)
        elif isinstance(target, ast.Tuple) and isinstance(stands_for, list):
            for part, paths in zip(target.elts, stands_for, strict=False):
                self._name(part, paths)

    def _of(self, node: ast.AST) -> set[Path]:
        """What an expression may stand for."""
        if isinstance(node, ast.Name):
            return self.paths.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self._of(node.value)}
        if isinstance(node, ast.NamedExpr):
            return self._of(node.value)
        if isinstance(node, ast.IfExp):
            return self._of(node.body) | self._of(node.orelse)
        if isinstance(node, ast.BoolOp):
            return set().union(*map(self._of, node.values))
        if isinstance(node, ast.Subscript):
            items = self._items(node.value)
            return (
                self._of(node.value)
                if isinstance(node.slice, ast.Slice)
                else items
                if isinstance(items, set)
                else set()
            )
        if isinstance(node, ast.Call):
            name, arguments = _called(node), node.args
            if name == "getattr" and len(arguments) > 1:
                return {(*path, _constant(arguments[1]) or "*") for path in self._of(arguments[0])}
            if name == "next" and arguments:
                items = self._items(arguments[0])
                return items if isinstance(items, set) else set()
            if name == "get_submodule" and isinstance(node.func, ast.Attribute) and arguments:
                below = _constant(arguments[0])
                return {(*path, *below.split(".")) for path in self._of(node.func.value)} if below else set()
        return set()

    def _items(self, node: ast.AST) -> Items:
        """What each item of an iterable may stand for."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return set().union(*map(self._of, node.elts))
        if isinstance(node, ast.Call):
            name = _called(node)
            if isinstance(node.func, ast.Attribute) and name in ("values", "children", "items", "named_children"):
                members = {(*path, "*") for path in self._of(node.func.value)}
                return members if name in ("values", "children") else [set(), members]
            if name == "enumerate" and node.args:
                return [set(), self._items(node.args[0])]
            if name == "zip":
                return [self._items(argument) for argument in node.args]
            if name in ("list", "tuple", "iter", "reversed") and node.args:
                return self._items(node.args[0])
        return {(*path, "*") for path in self._of(node)}

    def _owner(self, node: ast.AST, name: str) -> ast.AST | None:
        """What an attribute of that name is taken of, if it is one."""
        if isinstance(node, ast.Attribute):
            return node.value if node.attr == name else None
        if isinstance(node, ast.Call) and _called(node) == "getattr" and len(node.args) > 1:
            return node.args[0] if _constant(node.args[1]) == name else None
        return None

    def _is_part(self, node: ast.AST) -> bool:
        """Whether only something of it is taken, or it is only named or looked at."""
        parent = self.parents[node]
        if not isinstance(getattr(node, "ctx", None) or ast.Load(), ast.Load):
            return True
        if isinstance(parent, ast.Call) and node is not parent.func:
            return _called(parent) in LOOKED_THROUGH
        named = (ast.Attribute, ast.Subscript, ast.Assign, ast.NamedExpr, ast.IfExp, ast.Compare)
        return isinstance(parent, named) or parent not in self.parents

    def _is_value(self, node: ast.AST, seen: frozenset[str] = frozenset()) -> bool:
        """Whether the numbers of a tensor are read here, or under a name that it gets."""
        parent = self.parents[node]
        if not isinstance(getattr(node, "ctx", None) or ast.Load(), ast.Load):
            return False
        if isinstance(parent, ast.keyword):
            node, parent = parent, self.parents[parent]
        if isinstance(parent, ast.Attribute):
            if parent.attr == "data":
                return self._is_value(parent, seen)
            if parent.attr == "type":
                cast = self.parents[parent]
                return isinstance(cast, ast.Call) and bool(cast.args or cast.keywords)
            return not _only_asks(parent.attr) and not parent.attr.startswith("new_") and not parent.attr.endswith("_")
        if isinstance(parent, ast.Subscript):
            return isinstance(parent.ctx, ast.Load)
        if isinstance(parent, ast.Assign):
            return any(self._is_value_as(target, seen) for target in parent.targets)
        if isinstance(parent, ast.NamedExpr):
            return self._is_value(parent, seen) or self._is_value_as(parent.target, seen)
        if isinstance(parent, ast.Compare):
            return not all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
        if isinstance(parent, ast.Call) and node is not parent.func:
            called = _called(parent)
            return not (_only_asks(called) or called == "to" or called in LIKE or called.endswith("_"))
        return not isinstance(parent, ast.Expr)

    def _is_value_as(self, target: ast.expr, seen: frozenset[str]) -> bool:
        """Whether its numbers are read under the name that an assignment gives it."""
        if not isinstance(target, ast.Name):
            return not isinstance(target, ast.Attribute)
        uses = [node for node in self.parents if isinstance(node, ast.Name) and node.id == target.id]
        return target.id not in seen and any(self._is_value(use, seen | {target.id}) for use in uses)


def _called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _constant(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _only_asks(name: str) -> bool:
    """Whether a method or function of that name looks at no numbers of a tensor."""
    return name in NOT_VALUES or name.startswith("is_")
