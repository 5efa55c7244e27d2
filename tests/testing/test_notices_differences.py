"""The suite notices rows, differences and sums of blocks that are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.structures.families.low_rank import LowRank
from structune.structures.families.toeplitz import Toeplitz

from .conftest import GRID, SIZE, Family, suite


class NextRow(Toeplitz):
    def lookup(self, block_row: Tensor, row: Tensor, **generators: Tensor) -> Tensor:
        return super().lookup(block_row, (row + 1) % self.rows, **generators)


class FirstBlockRow(Toeplitz):
    def lookup(self, block_row: Tensor, row: Tensor, **generators: Tensor) -> Tensor:
        return super().lookup(block_row * 0, row, **generators)


class CutLookup(Toeplitz):
    def lookup(self, block_row: Tensor, row: Tensor, **generators: Tensor) -> Tensor:
        cut = {name: g.detach() + 0 * g for name, g in generators.items()}
        return super().lookup(block_row, row, **cut)


@pytest.mark.parametrize("wrong", [NextRow, FirstBlockRow, CutLookup])
def test_wrong_lookup(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="lookup in"):
        suite.test_lookup_is_rows_of_dense(family(wrong), SIZE, GRID)


class SignlessDifference(LowRank):
    """The sum for the difference."""

    def difference(self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Any:
        merged, numbers = super().difference(generators, start)
        moved, still = numbers["G"].chunk(2, dim=-1)
        return merged, {"G": torch.cat((moved, -still), -1), "H": numbers["H"]}


class CancellingDifference(LowRank):
    """Right, but for what fp32 leaves: G H − G⁰ H⁰ as a block of twice the rank."""

    def difference(self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Any:
        G = torch.cat((generators["G"], -start["G"]), -1)
        return replace(self, rank=2 * self.rank), {"G": G, "H": torch.cat((generators["H"], start["H"]), -2)}


class FrozenDifference(LowRank):
    def difference(self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Any:
        merged, numbers = super().difference(generators, start)
        return merged, {"G": numbers["G"], "H": numbers["H"].detach() + 0 * numbers["H"]}


def test_wrong_difference(family: Family) -> None:
    with pytest.raises(AssertionError, match="difference of"):
        suite.test_difference(family(SignlessDifference), (3, 5))
    with pytest.raises(AssertionError, match="gradient of a difference"):
        suite.test_difference(family(FrozenDifference), (3, 5))


def test_a_difference_that_cancels(family: Family) -> None:
    suite.test_difference(family(CancellingDifference), (3, 5))
    with pytest.raises(AssertionError, match="difference of"):
        suite.test_small_differences(family(CancellingDifference), (3, 5))
    with pytest.raises(AssertionError, match="error"):
        suite.test_small_updates_survive_narrow_inputs(family(CancellingDifference), "pooled", 1e-4)


class UnweightedSum(LowRank):
    @classmethod
    def sum_of(cls, terms: Any) -> Any:
        return super().sum_of([(1.0, block, generators) for _, block, generators in terms])


class SumOfFirst(Toeplitz):
    @classmethod
    def sum_of(cls, terms: Any) -> Any:
        return super().sum_of(terms[:1])


@pytest.mark.parametrize("wrong", [UnweightedSum, SumOfFirst])
def test_wrong_sum(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="sum of"):
        suite.test_sum_of_blocks(family(wrong), (3, 5))


class Halfway(LowRank):
    def nearest(self, matrix: Tensor) -> Any:
        found = super().nearest(matrix)
        return {"G": found["G"] / 2, "H": found["H"]}


class Rounded(LowRank):
    """Right for its own blocks, and a little off for all other matrices."""

    def nearest(self, matrix: Tensor) -> Any:
        found = super().nearest(matrix)
        own = torch.allclose(found["G"] @ found["H"], matrix)
        return found if own else {"G": found["G"] * 1.01, "H": found["H"]}


def test_wrong_nearest(family: Family) -> None:
    with pytest.raises(AssertionError, match="nearest Halfway"):
        suite.test_nearest_block(family(Halfway), (3, 5))
    with pytest.raises(AssertionError, match="a step brings a block nearer"):
        suite.test_nearest_block(family(Rounded), (3, 5))


class OneFactor(LowRank):
    def thin_factors(self, G: Tensor, H: Tensor) -> Any:
        return G, H.flip(-1)


def test_wrong_factors(family: Family) -> None:
    with pytest.raises(AssertionError, match="thin factors"):
        suite.test_thin_factors(family(OneFactor), (3, 5))
