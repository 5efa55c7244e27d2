"""The suite notices rows, differences and sums of blocks that are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.structures.base import telescoped
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
        G, H = telescoped(generators, start)
        return replace(self, rank=2 * self.rank), {"G": torch.cat((G[0], -G[1]), -1), "H": torch.cat(H, -2)}


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
