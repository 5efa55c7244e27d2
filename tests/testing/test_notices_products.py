"""The suite notices products of a family's own, what they say they cost, and differences that are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.structures.families.low_rank import LowRank
from structune.structures.families.toeplitz import Toeplitz

from .conftest import GRID, SIZE, Family, suite


class OwnGradient(torch.autograd.Function):
    """A product whose backward pass forgets that x is multiplied from the other side, or leaves a factor out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, G: Tensor, H: Tensor, mistake: str) -> Tensor:
        ctx.save_for_backward(x, G, H)
        ctx.mistake = mistake
        return torch.einsum("pqmr,pqrn,tqn->tpm", G, H, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, G, H = ctx.saved_tensors
        of_x = torch.einsum("pqmr,pqrn,tpm->tqn", G, H, grad)
        of_G = torch.einsum("tpm,pqrn,tqn->pqmr", grad, H, x)
        of_H = torch.einsum("tpm,pqmr,tqn->pqrn", grad, G, x)
        if ctx.mistake == "x":
            of_x = -of_x
        return of_x, of_G, of_H / 2 if ctx.mistake == "H" else of_H, None


class WrongForX(LowRank):
    def multiply(self, x_TQN: Tensor, G: Tensor, H: Tensor) -> Tensor:
        product: Tensor = OwnGradient.apply(x_TQN, G.to(x_TQN), H.to(x_TQN), "x")
        return product


class WrongForH(LowRank):
    def multiply(self, x_TQN: Tensor, G: Tensor, H: Tensor) -> Tensor:
        product: Tensor = OwnGradient.apply(x_TQN, G.to(x_TQN), H.to(x_TQN), "H")
        return product


class FirstBlockOnly(LowRank):
    """One block's product in the place of a grid's."""

    def multiply(self, x_TQN: Tensor, G: Tensor, H: Tensor) -> Tensor:
        return super().multiply(x_TQN[:, :1], G[:, :1], H[:, :1])


class CutProduct(LowRank):
    def multiply(self, x_TQN: Tensor, G: Tensor, H: Tensor) -> Tensor:
        return super().multiply(x_TQN, G, H.detach() + 0 * H)


class FreeProduct(LowRank):
    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return 0


class FlatProduct(LowRank):
    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return self.rank * (self.rows + self.cols)


@pytest.mark.parametrize("wrong", [WrongForX, WrongForH, FirstBlockOnly, CutProduct])
def test_own_products(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="factored .*: normalised error"):
        suite.test_algorithms_equal_dense(family(wrong), SIZE, GRID)


@pytest.mark.parametrize("wrong", [FreeProduct, FlatProduct])
def test_costs(family: Family, wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="multiplications for one block"):
        suite.test_own_product_says_what_it_costs(family(wrong), SIZE)


class StartKept(Toeplitz):
    """A difference that leaves the start where it is."""

    def difference(self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Any:
        return self, dict(generators)


def test_a_start_that_is_not_subtracted(family: Family) -> None:
    with pytest.raises(AssertionError, match="from a start"):
        suite.test_start_is_subtracted(family(StartKept), SIZE, GRID)
