"""The suite notices blocks that are not what they say: displacement, options, sizes, dtypes, devices, advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.structures.families.low_rank import LowRank
from structune.structures.families.toeplitz import Toeplitz
from structune.structures.generator import Generator, zeros

from .conftest import Family, suite


@dataclass(frozen=True)
class Unstructured(Structure):
    """W = D: no structure at all."""

    name: ClassVar[str] = "unstructured"

    @staticmethod
    def oracle(structure: Structure, D: np.ndarray) -> np.ndarray:
        return D

    def generators(self) -> dict[str, Generator]:
        return {"D": zeros(self.rows, self.cols)}

    def entries(self, D: Tensor) -> Tensor:
        return D * 1


class CornerDisplacement(Unstructured):
    """(e₀e₀ᵀ, 0) has rank 1 for every matrix."""

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        A = torch.zeros(self.rows, self.rows, dtype=torch.float64)
        A[0, 0] = 1
        return A, torch.zeros(self.cols, self.cols, dtype=torch.float64)

    @property
    def displacement_rank(self) -> int:
        return 1


class NoDisplacement(CornerDisplacement):
    """(0, 0) has rank 0 for every matrix."""

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        A, B = super().operators(**generators)
        return A * 0, B

    @property
    def displacement_rank(self) -> int:
        return 0


class RankWithoutPair(Unstructured):
    @property
    def displacement_rank(self) -> int:
        return 1


@pytest.mark.parametrize("wrong", [CornerDisplacement, NoDisplacement])
def test_a_pair_that_says_nothing(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="a random matrix has the displacement rank"):
        suite.test_displacement_rank(family(wrong), (7, 7))


def test_a_rank_without_a_pair(family: Family) -> None:
    with pytest.raises(AssertionError, match="a displacement rank of 1, and no pair"):
        suite.test_displacement_rank(family(RankWithoutPair), (7, 7))


def test_a_family_needs_no_displacement(family: Family) -> None:
    suite.test_displacement_rank(family(Unstructured), (7, 7))


@dataclass(frozen=True)
class IdleOption(Toeplitz):
    """An option that nothing follows from."""

    bandwidth: int = 1


@dataclass(frozen=True)
class Careless(LowRank):
    """Takes whatever it is given for a rank."""

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True)
class FixedDefault(LowRank):
    """Right for the rank that it was written for."""

    def entries(self, G: Tensor, H: Tensor) -> Tensor:
        return G[..., :2] @ H[..., :2, :]


class Counting(Toeplitz):
    """Generators change from call to call."""

    def generators(self) -> dict[str, Generator]:
        object.__setattr__(self, "calls", getattr(self, "calls", 0) + 1)
        return {"t": zeros(self.rows + self.cols - 1 + vars(self)["calls"])}


def test_an_option_that_changes_nothing(family: Family) -> None:
    with pytest.raises(AssertionError, match="bandwidth changes nothing"):
        suite.test_own_options(family(IdleOption))


def test_an_option_that_takes_anything(family: Family) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite.test_own_options(family(Careless))


def test_an_option_that_is_right_at_one_value(family: Family) -> None:
    with pytest.raises(AssertionError, match="rank=3"):
        suite.test_dense_is_the_definition(family(FixedDefault), (5, 3), (1, 1))


def test_generators_that_change(family: Family) -> None:
    with pytest.raises(AssertionError, match="generators change"):
        suite.test_a_block_is_known_by_its_integers(family(Counting), (3, 5))


class Even(Toeplitz):
    """Sizes must be even."""

    def check_sizes(self) -> None:
        if self.rows % 2 or self.cols % 2:
            raise ValueError(f"toeplitz: {self.rows}×{self.cols} is odd: choose even sizes")


class Silent(Toeplitz):
    def check_sizes(self) -> None:
        if self.rows != self.cols:
            raise ValueError("wrong sizes")


class Nothing(Toeplitz):
    def check_sizes(self) -> None:
        raise ValueError(f"toeplitz: {self.rows}×{self.cols} is not possible")


class Square(Toeplitz):
    """Takes rectangles, and makes squares of them."""

    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t)[..., : self.cols, : self.rows]


@pytest.mark.parametrize(
    ("wrong", "said"), [(Silent, "refused without family"), (Nothing, "takes no block"), (Square, "matrix of")]
)
def test_sizes(family: Family, wrong: type[Structure], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        suite.test_sizes(family(wrong))


def test_a_family_may_refuse_sizes(family: Family) -> None:
    """Then the suite tries the next larger ones."""
    name = family(Even)
    suite.test_sizes(name)
    suite.test_dense_is_the_definition(name, (3, 5), (2, 3))
    suite.test_algorithms_equal_dense(name, (3, 5), (2, 3))
    suite.test_strip_is_rows_of_dense(name, (1, 5), (2, 3))
    suite.test_starts_at_zero_with_a_gradient(name, "pooled", torch.float32)


class Widened(Toeplitz):
    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t).double()


class NarrowedLookup(Toeplitz):
    def lookup(self, block_row: Tensor, row: Tensor, **generators: Tensor) -> Tensor:
        return super().lookup(block_row, row, **generators).float()


class Homebound(Toeplitz):
    """Makes a tensor where it is, not where its numbers are."""

    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t) + torch.zeros(self.rows, self.cols)


def test_dtypes(family: Family) -> None:
    with pytest.raises(AssertionError, match="dense gives torch.float64 from torch.float32"):
        suite.test_dtypes_are_kept(family(Widened), (3, 5), torch.float32)
    with pytest.raises(AssertionError, match="lookup gives torch.float32 from torch.float64"):
        suite.test_dtypes_are_kept(family(NarrowedLookup), (3, 5), torch.float64)


def test_devices(family: Family) -> None:
    with pytest.raises((AssertionError, RuntimeError), match="device"):
        suite.test_stays_on_its_device(family(Homebound), (3, 5))


class Shrinking(Toeplitz):
    @classmethod
    def growth(cls, n: float) -> float:
        return 1 / n


class Timeless(Toeplitz):
    learning_rate: ClassVar[float] = 0.0


class Unmarked(Toeplitz):
    marker: ClassVar[str] = ""


@pytest.mark.parametrize(
    ("wrong", "said"), [(Shrinking, "does not grow"), (Timeless, "learning_rate=0"), (Unmarked, "no marker")]
)
def test_advice(family: Family, wrong: type[Structure], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        suite.test_what_it_recommends(family(wrong))
