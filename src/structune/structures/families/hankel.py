"""Hankel: constant along each anti-diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.base import Structure
from structune.structures.convolution import Convolution
from structune.structures.generator import Generator, zeros
from structune.structures.registry import register
from structune.structures.shift import shift
from structune.surroundings import natively


def hankel_entries(h: Tensor, cols: int) -> Tensor:
    """W[i, j] = h[i + j], from h (…, rows + cols − 1): windows of h, copied where there is no rule for them."""
    if natively():
        rows = h.shape[-1] - cols + 1
        return h[..., torch.arange(rows, device=h.device)[:, None] + torch.arange(cols, device=h.device)]
    return h.unfold(-1, cols, 1)


def antidiagonal_sums(matrix: Tensor) -> Tensor:
    """s[k] = Σ_{i+j=k} A[i, j], the adjoint of `hankel_entries`: (…, M, N) to (…, M + N − 1).

    With M zeros after each row and read in rows that are one shorter, A[i, j] stands in column i + j.
    """
    rows, cols = matrix.shape[-2:]
    width = rows + cols - 1
    skewed = pad(matrix, (0, rows)).flatten(-2)[..., : rows * width].unflatten(-1, (rows, width))
    sums: Tensor = skewed.sum(dim=-2)
    return sums


@register
@dataclass(frozen=True)
class Hankel(Structure):
    """W[i, j] = h[i + j] with h (M + N − 1,): the first column, then the last row.

    h = (1, 2, 3, 4), M = 2, N = 3 gives  | 1 2 3 |
                                          | 2 3 4 |

    Displacement pair (Z_1, Z_0ᵀ), rank 2. Source: TR2024-157, Table 1 and Figure 1;
    SciPy's `scipy.linalg.hankel(h[:M], h[M−1:])`.
    """

    name: ClassVar[str] = "hankel"
    marker: ClassVar[str] = "^"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    def generators(self) -> dict[str, Generator]:
        return {"h": zeros(self.rows + self.cols - 1)}

    def entries(self, h: Tensor) -> Tensor:
        return hankel_entries(h, self.cols)

    def strip(self, start: int, stop: int, h: Tensor) -> Tensor:
        return hankel_entries(h[..., start : stop + self.cols - 1], self.cols)

    def pullback(self, grad: Tensor, start: int = 0, *, h: Tensor) -> dict[str, Tensor]:
        return {"h": pad(antidiagonal_sums(grad), (start, self.rows - start - grad.shape[-2]))}

    def operators(self, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, 0.0).T

    @property
    def displacement_rank(self) -> int:
        return 2

    def convolutions(self, h: Tensor) -> tuple[Convolution, ...]:
        return (Convolution(h, self.rows, self.cols, offset=self.cols - 1, reverse=True),)
