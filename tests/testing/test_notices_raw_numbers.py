"""The suite notices raw numbers that mean too much or too little, and starts from which nothing trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.structures.families.cauchy import Cauchy
from structune.structures.families.low_rank import LowRank
from structune.structures.families.toeplitz import Toeplitz
from structune.structures.generator import Generator, uniform, zeros

from .conftest import Family, suite


@dataclass(frozen=True)
class Kronecker(Structure):
    """W = A ⊗ B with two rows and two columns of blocks, cropped; A starts at zero."""

    name: ClassVar[str] = "kronecker_of_two"

    @staticmethod
    def oracle(structure: Structure, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        return np.kron(A, B)[: structure.rows, : structure.cols]

    def generators(self) -> dict[str, Generator]:
        return {"A": zeros(2, 2), "B": uniform(-(-self.rows // 2), -(-self.cols // 2))}

    def entries(self, A: Tensor, B: Tensor) -> Tensor:
        W = A[..., :, None, :, None] * B[..., None, :, None, :]
        return W.flatten(-4, -3).flatten(-2)[..., : self.rows, : self.cols]


class DeadKronecker(Kronecker):
    """Both factors start at zero, and so does the gradient of either."""

    def generators(self) -> dict[str, Generator]:
        return {name: zeros(*generator.shape) for name, generator in super().generators().items()}


class SquaredToeplitz(Toeplitz):
    """Zero where its numbers are zero, with a gradient, and not linear."""

    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t + t * t)

    def convolutions(self, t: Tensor) -> tuple[()]:
        return ()


class ShiftedToeplitz(Toeplitz):
    """Not zero where its numbers are."""

    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t) + 1


def test_a_family_that_starts_right(family: Family) -> None:
    name = family(Kronecker)
    suite.test_zeros_of_the_start(name, (3, 5))
    suite.test_starts_at_zero_with_a_gradient(name, "own", torch.float32)


def test_a_family_that_never_trains(family: Family) -> None:
    name = family(DeadKronecker)
    with pytest.raises(AssertionError, match="never trains"):
        suite.test_zeros_of_the_start(name, (3, 5))
    with pytest.raises(AssertionError, match="never trains"):
        suite.test_starts_at_zero_with_a_gradient(name, "own", torch.float32)
    with pytest.raises(AssertionError, match="not linear in all"):
        suite.test_linear_where_all_starts_at_zero(name, (3, 5))


def test_zeros_that_are_not_zero(family: Family) -> None:
    name = family(ShiftedToeplitz)
    with pytest.raises(AssertionError, match="W is not zero where t start"):
        suite.test_zeros_of_the_start(name, (3, 5))
    with pytest.raises(AssertionError, match="ΔW is not zero at the start"):
        suite.test_starts_at_zero_with_a_gradient(name, "pooled", torch.float32)


def test_zeros_without_linearity(family: Family) -> None:
    suite.test_zeros_of_the_start(family(SquaredToeplitz), (3, 5))
    with pytest.raises(AssertionError, match="not linear in all"):
        suite.test_linear_where_all_starts_at_zero(family(SquaredToeplitz), (3, 5))


class BareCauchy(Cauchy):
    """Nodes are the raw numbers themselves: they may meet."""

    def from_raw(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {"u": u, "v": v}


class LoudLowRank(LowRank):
    def from_raw(self, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return {"G": 4 * G, "H": 4 * H}


class QuietLowRank(LowRank):
    def from_raw(self, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return {"G": G / 8, "H": H / 8}


class JumpyToeplitz(Toeplitz):
    """Entries of order one, thirty times as fast as their numbers."""

    def from_raw(self, t: Tensor) -> dict[str, Tensor]:
        return {"t": torch.sin(30 * t)}


class MixedBlocks(Toeplitz):
    def from_raw(self, t: Tensor) -> dict[str, Tensor]:
        return {"t": t - t.flatten().mean()}


class WrongInverse(LowRank):
    def to_raw(self, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return {"G": G, "H": H}


def test_nodes_without_a_map(family: Family) -> None:
    with pytest.raises(AssertionError, match="give entries of"):
        suite.test_any_number_is_valid(family(BareCauchy), (3, 5))


@pytest.mark.parametrize("wrong", [LoudLowRank, QuietLowRank])
def test_entries_of_another_order(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="are allowed"):
        suite.test_raw_numbers_of_order_one_give_entries_of_order_one(family(wrong), (48, 48))


def test_steps_of_another_order(family: Family) -> None:
    suite.test_raw_numbers_of_order_one_give_entries_of_order_one(family(JumpyToeplitz), (48, 48))
    with pytest.raises(AssertionError, match="are allowed|an entry moves"):
        suite.test_a_step_moves_entries_by_about_as_much(family(JumpyToeplitz), (48, 48))


def test_blocks_that_depend_on_each_other(family: Family) -> None:
    with pytest.raises(AssertionError, match="from_raw t"):
        suite.test_from_raw_maps_each_block_by_itself(family(MixedBlocks), (3, 5))


def test_a_wrong_inverse(family: Family) -> None:
    with pytest.raises(AssertionError, match="to_raw"):
        suite.test_to_raw_inverts_from_raw(family(WrongInverse), (3, 5))
