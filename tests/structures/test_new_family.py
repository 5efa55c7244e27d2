"""A family from outside: one class, one oracle, and the suite runs as it is."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from structune import structures
from structune.delta import StructuredDelta
from structune.structures import Convolution, Generator, Structure, registry
from structune.structures.families.toeplitz import toeplitz_entries
from structune.structures.generator import zeros
from structune.structures.shift import krylov_diagonals, shift
from structune.testing import StructureConformance, oracle
from structune.testing.oracles import ORACLES


@dataclass(frozen=True)
class SkewCirculant(Structure):
    """W[i, j] = ±c[(i − j) mod n], the sign turning where the index wraps: K(Z_−1, c), cropped."""

    name: ClassVar[str] = "skew_circulant"

    @property
    def order(self) -> int:
        return max(self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        return {"c": zeros(self.order)}

    def entries(self, c: Tensor) -> Tensor:
        return toeplitz_entries(krylov_diagonals(c, -1.0), self.order)[..., : self.rows, : self.cols]

    def operators(self, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return shift(self.rows, -1.0), shift(self.cols, -1.0)

    @property
    def displacement_rank(self) -> int:
        return 0

    def convolutions(self, c: Tensor) -> tuple[Convolution, ...]:
        return (Convolution(c, self.rows, self.cols, period=self.order, wrap=-1),)


def _oracle(structure: Structure, c: Any) -> Any:
    n = len(c)
    return np.array(
        [[c[i - j] if i >= j else -c[n + i - j] for j in range(structure.cols)] for i in range(structure.rows)]
    )


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    monkeypatch.setitem(ORACLES, "skew_circulant", _oracle)
    structures.register(SkewCirculant)
    oracle("skew_circulant")(_oracle)


@pytest.mark.parametrize("family", ["skew_circulant"])
class TestSkewCirculant(StructureConformance):
    """Everything the built-in families are tested for."""


def test_the_suite_needs_only_the_name() -> None:
    tests = [getattr(StructureConformance, name) for name in dir(StructureConformance) if name.startswith("test_")]
    assert len(tests) >= 12
    assert all("family" in inspect.signature(test).parameters for test in tests)


def test_it_can_be_trained_at_once() -> None:
    delta = StructuredDelta(10, 9, structure="skew_circulant", num_splits=2, pool_size=7)
    assert not delta.dense().any()
    delta(torch.ones(3, 9)).sum().backward()
    assert delta.pool.grad is not None
    assert delta.pool.grad.all()
