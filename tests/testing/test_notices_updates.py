"""The suite notices updates that do not start, train or come back as they should, and passes unusual ones."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from structune import pool
from structune.delta import StructuredDelta
from structune.structures import Structure
from structune.structures.families.cauchy_like import CauchyLike
from structune.structures.families.toeplitz import Toeplitz
from structune.structures.generator import Generator, uniform
from structune.testing.oracles import ORACLES

from .conftest import Family, suite


class Bounded(Toeplitz):
    """A convolution whose kernel is a curved function of its numbers, and starts at random."""

    name: ClassVar[str] = "bounded_toeplitz"
    oracle = staticmethod(ORACLES["toeplitz"])

    def generators(self) -> dict[str, Generator]:
        return {"t": uniform(self.rows + self.cols - 1)}

    def from_raw(self, t: Tensor) -> dict[str, Tensor]:
        return {"t": torch.sin(t)}


@pytest.mark.parametrize("source", ["own", "pooled, partly frozen"])
def test_a_convolution_that_is_not_linear_in_its_numbers(family: Family, source: str) -> None:
    name = family(Bounded)
    suite.test_an_update_is_a_grid_of_blocks(name, source)
    suite.test_inference_is_the_product_with_dense(name, source)
    suite.test_starts_at_zero_with_a_gradient(name, source, torch.float32)


class Slow(Toeplitz):
    learning_rate: ClassVar[float] = 1e-5


class Wild(Toeplitz):
    learning_rate: ClassVar[float] = 0.9


@pytest.mark.parametrize(("wrong", "said"), [(Slow, "of the loss are left"), (Wild, "the loss rises")])
def test_rates(family: Family, wrong: type[Structure], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        suite.test_trains_at_its_learning_rate(family(wrong), "own")


class NarrowUnderAutocast(CauchyLike):
    """Its entries round where autocast is at work; ΔW is what is left of two of them."""

    def entries(self, **generators: Tensor) -> Tensor:
        W = super().entries(**generators)
        return W.bfloat16().to(W.dtype) if W.dtype == torch.float32 else W


def test_entries_that_are_narrow(family: Family) -> None:
    with pytest.raises(AssertionError, match="error"):
        suite.test_small_updates_survive_narrow_inputs(family(NarrowUnderAutocast), "pooled", 1e-4)


class Random(Toeplitz):
    """Its numbers mean something else in every process."""

    def from_raw(self, t: Tensor) -> dict[str, Tensor]:
        return {"t": t * (1 + torch.rand((), dtype=t.dtype))}


def test_what_files_do_not_say(family: Family) -> None:
    with pytest.raises(AssertionError, match="a file means something else"):
        suite.test_files_bring_it_back(family(Random), "own")


def test_a_start_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StructuredDelta, "centred", property(lambda self: False))
    with pytest.raises(AssertionError, match="ΔW is not zero at the start"):
        suite.test_starts_at_zero_with_a_gradient("cauchy", "own", torch.float32)


def test_a_pool_that_is_dealt_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index map from PyTorch's own random numbers."""
    monkeypatch.setattr(pool, "index_map", lambda P, blocks, numel, *args, **kwargs: torch.randint(P, (blocks, numel)))
    with pytest.raises(AssertionError, match="a file means something else"):
        suite.test_files_bring_it_back("toeplitz", "pooled")
