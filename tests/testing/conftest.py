"""The suite, and families, products and sources that are wrong on purpose put where it finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest
from torch import Tensor

from structune import products
from structune.products.algorithm import Algorithm
from structune.structures import Structure, registry
from structune.testing import StructureConformance
from structune.testing.oracles import ORACLES

suite = StructureConformance()

SIZE, GRID = (7, 12), (2, 3)

Family: TypeAlias = Callable[[type[Structure]], str]


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    """Register a family, in the place of another of its name if there is one; gives its name."""

    def put(kind: type[Structure]) -> str:
        monkeypatch.setitem(registry._families, kind.name, kind)
        if oracle := getattr(kind, "oracle", None):
            monkeypatch.setitem(ORACLES, kind.name, oracle)
        return kind.name

    return put


@pytest.fixture
def algorithm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Add an algorithm for every family."""

    def add(multiply: Callable[[Structure, Tensor, Mapping[str, Tensor]], Tensor]) -> None:
        methods = {"supports": lambda self, structure: True, "multiply": lambda self, *arguments: multiply(*arguments)}
        monkeypatch.setitem(products.ALGORITHMS, "wrong", type("Wrong", (Algorithm,), methods)())

    return add
