"""The suite notices entries, rows and their gradients that are wrong on purpose, one mistake at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from structune.numerics.scan import running_sums
from structune.structures import Convolution, Structure, diagonals, registry
from structune.structures.families import hankel, hankel_like, low_rank, toeplitz, toeplitz_like
from structune.structures.families import vandermonde as vandermonde_file

from .conftest import GRID, SIZE, suite


class OffByOneToeplitz(toeplitz.Toeplitz):
    def entries(self, t: Tensor) -> Tensor:
        return super().entries(t.roll(1, -1))


class TransposedVandermonde(vandermonde_file.Vandermonde):
    def entries(self, v: Tensor) -> Tensor:
        return super().entries(v).flip(-1)


class WrongOffsetToeplitz(toeplitz.Toeplitz):
    def convolutions(self, t: Tensor) -> tuple[Convolution, ...]:
        (convolution,) = super().convolutions(t)
        return (replace(convolution, offset=convolution.offset + 1),)


class ForwardHankel(hankel.Hankel):
    def convolutions(self, h: Tensor) -> tuple[Convolution, ...]:
        (convolution,) = super().convolutions(h)
        return (replace(convolution, reverse=False),)


class OverstatedHankelLike(hankel_like.HankelLike):
    @property
    def displacement_rank(self) -> int:
        return max(self.rows, 3)


class UnderstatedHankel(hankel.Hankel):
    @property
    def displacement_rank(self) -> int:
        return 1


class UnbroadcastToeplitzLike(toeplitz_like.ToeplitzLike):
    def strip(self, start: int, stop: int, G: Tensor, H: Tensor) -> Tensor:
        return super().strip(start, stop, G, H.expand(G.shape))


class LateStripHankel(hankel.Hankel):
    def strip(self, start: int, stop: int, h: Tensor) -> Tensor:
        return super().strip(start, stop, h.roll(-1, -1))


class ShortStripToeplitz(toeplitz.Toeplitz):
    def strip(self, start: int, stop: int, t: Tensor) -> Tensor:
        return super().strip(start, stop, t)[..., 1:, :]


class ConjugatePullbackToeplitz(toeplitz.Toeplitz):
    """Sums along diagonals in the wrong order: a convolution where a correlation belongs."""

    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        return {"t": super().pullback(grad, start, t=t)["t"].flip(-1)}


class UnplacedPullbackHankel(hankel.Hankel):
    def pullback(self, grad: Tensor, start: int = 0, *, h: Tensor) -> dict[str, Tensor]:
        return super().pullback(grad, 0, h=h)


class HalfPullbackLowRank(low_rank.LowRank):
    def pullback(self, grad: Tensor, start: int = 0, *, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return super().pullback(grad, start, G=G, H=H) | {"H": torch.zeros_like(H)}


class RoundedPullbackToeplitz(toeplitz.Toeplitz):
    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        return super().pullback(grad.bfloat16().to(grad.dtype), start, t=t)


class InPlacePullbackToeplitz(toeplitz.Toeplitz):
    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        result = super().pullback(grad, start, t=t)
        grad.neg_().neg_().mul_(2)
        return result


class ContiguousOnlyPullbackToeplitz(toeplitz.Toeplitz):
    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        return super().pullback(torch.as_strided(grad, grad.shape, grad.contiguous().stride()), start, t=t)


class UnwrittenPullbackToeplitz(toeplitz.Toeplitz):
    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        return {"t": super().pullback(grad, start, t=t)["t"] + torch.empty_like(t) * 0}


class DetachedVandermonde(vandermonde_file.Vandermonde):
    """Right in its first derivative, whose own derivative is lost."""

    def entries(self, v: Tensor) -> Tensor:
        W, node = super().entries(v.detach()), v.unsqueeze(-1)
        slope = torch.arange(self.cols) * super().entries(v.detach()).roll(1, -1)
        return W + slope * (node - node.detach())


@pytest.mark.parametrize("wrong", [OffByOneToeplitz, TransposedVandermonde])
def test_wrong_entries(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="W: normalised error"):
        suite.test_dense_is_the_definition(family(wrong), SIZE, GRID)


@pytest.mark.parametrize("wrong", [WrongOffsetToeplitz, ForwardHankel])
def test_wrong_convolution(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="fft y: normalised error"):
        suite.test_algorithms_equal_dense(family(wrong), SIZE, GRID)


@pytest.mark.parametrize("wrong", [OverstatedHankelLike, UnderstatedHankel])
def test_wrong_displacement_rank(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="rank"):
        suite.test_displacement_rank(family(wrong), (7, 7))


def test_wrong_broadcast(family: Callable[[type[Structure]], str]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        suite.test_dense_broadcasts_leading_dimensions(family(UnbroadcastToeplitzLike), (3, 5))


@pytest.mark.parametrize("name", ["toeplitz_like", "hankel_like"])
@pytest.mark.parametrize(
    "wrong",
    [lambda F: running_sums(-F), lambda F: running_sums(F.roll(1, -1)), lambda F: F.cumsum(-2)],
    ids=["sign", "off by one", "columns for diagonals"],
)
def test_wrong_running_sums(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[[Tensor], Tensor]) -> None:
    monkeypatch.setattr(diagonals, "running_sums", wrong)
    with pytest.raises(AssertionError, match="W: normalised error"):
        suite.test_dense_is_the_definition(name, SIZE, GRID)


@pytest.mark.parametrize("wrong", [LateStripHankel, ShortStripToeplitz])
def test_wrong_strip(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="strip|shape"):
        suite.test_strip_is_rows_of_dense(family(wrong), SIZE, GRID)


@pytest.mark.parametrize("wrong", [ConjugatePullbackToeplitz, UnplacedPullbackHankel, HalfPullbackLowRank])
def test_wrong_pullback(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError, match="pullback of rows"):
        suite.test_pullback_is_the_gradient_of_dense(family(wrong), SIZE, GRID)


def test_imprecise_pullback(family: Callable[[type[Structure]], str]) -> None:
    with pytest.raises(AssertionError, match="t: normalised error"):
        suite.test_precision_of_a_pullback(family(RoundedPullbackToeplitz), SIZE, GRID)


@pytest.mark.parametrize("wrong", [InPlacePullbackToeplitz, ContiguousOnlyPullbackToeplitz, UnwrittenPullbackToeplitz])
def test_careless_pullback(family: Callable[[type[Structure]], str], wrong: type[Structure]) -> None:
    with pytest.raises(AssertionError):
        suite.test_pullback_reads_only_what_it_is_given(family(wrong), SIZE, GRID)


def test_entries_with_one_derivative(family: Callable[[type[Structure]], str]) -> None:
    with pytest.raises((GradcheckError, RuntimeError)):
        suite.test_dense_is_twice_differentiable(family(DetachedVandermonde), (3, 5))


def test_missing_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nameless(toeplitz.Toeplitz):
        name = "nameless"

    monkeypatch.setitem(registry._families, "nameless", Nameless)
    with pytest.raises(LookupError, match="'nameless' has no oracle"):
        suite.test_dense_is_the_definition("nameless", SIZE, GRID)
