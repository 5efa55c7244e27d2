"""Families that solve W[i, j] = W[i − 1, j − 1] + Σ_l g_l[i] h_l[j], the form of a displacement equation's entries."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.ranked import CroppedStructure
from structune.surroundings import natively


@dataclass(frozen=True)
class DiagonalRecursion(CroppedStructure):
    """A family that is built along its diagonals from three edges, in O(R M N); a strip of it as well."""

    @property
    def inner_vectors(self) -> int:
        return self.rank

    @abstractmethod
    def steps(self, start: int, stop: int, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        """Thin factors of the steps from entry to entry of the strip, as `thin_steps` makes them."""

    def entries(self, G: Tensor, H: Tensor) -> Tensor:
        return self.strip(0, self.rows, G, H)

    def strip(self, start: int, stop: int, G: Tensor, H: Tensor) -> Tensor:
        left, right = self.steps(start, stop, *torch.broadcast_tensors(G, H))
        return running_sums(left @ right)

    def pullback(self, grad: Tensor, start: int = 0, **generators: Tensor) -> dict[str, Tensor]:
        """The sums run back up the diagonals, two thin products lead to the factors, autograd from there on."""
        with torch.no_grad():
            turned_grad = running_sums(grad.flip(-2, -1)).flip(-2, -1)
        leaves = {name: generator.detach().requires_grad_() for name, generator in generators.items()}
        with torch.enable_grad():
            left, right = self.steps(start, start + grad.shape[-2], **leaves)
        cotangents = (turned_grad @ right.detach().mT, left.detach().mT @ turned_grad)
        gradients = torch.autograd.grad((left, right), tuple(leaves.values()), cotangents)
        return dict(zip(leaves, gradients, strict=True))


SCAN_ROWS = 16
"""Rows that are summed at once, by a product with a triangle of ones."""


def running_sums(steps: Tensor) -> Tensor:
    """W[i, j] = W[i − 1, j − 1] + steps[i, j], with W[i − 2, N − 1] before W[i, 0]: (…, M, N) to (…, M, N).

    Read in rows that are one longer, a matrix has its diagonals in columns, one after the other, and sums down the
    columns add them all up: within groups of SCAN_ROWS rows, and what comes from the groups above. The adjoint is the
    same with the matrix turned by 180° before and after.

    Examples:
        >>> running_sums(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]))
        tensor([[ 1.,  2.,  3.],
                [ 4.,  6.,  8.],
                [10., 12., 15.]])
    """
    rows, cols = steps.shape[-2:]
    length = rows * cols
    upright = pad(steps.flatten(-2), (0, -length % (SCAN_ROWS * (cols + 1)))).unflatten(-1, (-1, SCAN_ROWS, cols + 1))
    totals = upright.sum(dim=-2)
    above = (totals.cumsum(dim=-2) - totals).unsqueeze(-2)
    triangle = torch.ones(SCAN_ROWS, SCAN_ROWS, dtype=steps.dtype, device=steps.device).tril()
    groups = upright.shape[:-2].numel()
    sums = torch.baddbmm(
        above.flatten(0, -3).expand(-1, SCAN_ROWS, -1), triangle.expand(groups, -1, -1), upright.flatten(0, -3)
    )
    return sums.view_as(upright).flatten(-3)[..., :length].unflatten(-1, (rows, cols))


def thin_steps(
    G: Tensor, H: Tensor, first_row: Tensor, first_column: Tensor, last_column: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors (…, M, R + 2) and (…, R + 2, N) whose product has these `running_sums`: Σ_l g_l h_lᵀ and W's edges.

    Args:
        G: (…, R, M); the first number of each row is not used.
        H: (…, R, N); the first number of each row is not used.
        first_row: (…, N).
        first_column: (…, M).
        last_column: (…, M), the numbers at which the recursion arrives.
    """
    turns = pad(first_column[..., 1:], (1, 0)) - pad(last_column, (2, 0))[..., : G.shape[-1]]
    top, left = (pad(torch.ones_like(v[..., :1, :1]), (0, v.shape[-1] - 1)) for v in (G, H))
    down = torch.cat((pad(G[..., 1:], (1, 0)), top, turns.unsqueeze(-2)), dim=-2)
    across = torch.cat((pad(H[..., 1:], (1, 0)), first_row.unsqueeze(-2), left), dim=-2)
    return down.mT, across


def convolution(a: Tensor, b: Tensor, period: int) -> Tensor:
    """Σ_l Σ_k a_l[(i − k) mod period] b_l[k]: a, b (…, R, ≤ period), filled up with zeros, to (…, period).

    Worked out by FFT in at least fp32.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    filled = (pad(v.to(dtype), (0, period - v.shape[-1])) for v in (a, b))
    return _cyclic(*filled).sum(dim=-2).to(a.dtype)


def _cyclic(a: Tensor, b: Tensor) -> Tensor:
    """a ∗ b along the last axis, in PyTorch's own operations where that is asked for."""
    product: Tensor = _product(a, b) if natively() else _Convolution.apply(a, b)  # type: ignore[no-untyped-call]
    return product


def _product(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.fft.irfft(torch.fft.rfft(a) * torch.fft.rfft(b), a.shape[-1])
    return product


class _Convolution(torch.autograd.Function):
    """Cyclic convolution along the last axis; keeps its real arguments, where autograd would keep their spectra."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _product(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        return tuple(
            _cyclic(grad, other.flip(-1).roll(1, dims=-1)) if needed else None
            for other, needed in zip((b, a), ctx.needs_input_grad, strict=True)
        )
