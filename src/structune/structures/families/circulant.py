"""Circulant: each column is the one before it, rotated down by one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.base import Structure
from structune.structures.convolution import Convolution
from structune.structures.families.toeplitz import diagonal_sums, toeplitz_entries
from structune.structures.generator import Generator, zeros
from structune.structures.registry import register
from structune.structures.shift import shift


def first_column(first_row: Tensor) -> Tensor:
    """The first column (…, L) of the circulant whose first row is (…, L): c_i = w_{(−i) mod L}; its own inverse.

    C3A (arXiv 2407.19342, section 3.2) writes a circulant by its first row, rotated right; SciPy and this package by
    its first column, rotated down.
    """
    return first_row.flip(-1).roll(1, -1)


@register
@dataclass(frozen=True)
class Circulant(Structure):
    """W[i, j] = c[(i − j) mod L] with c (L,), L = max(M, N), cropped to M×N.

    c = (1, 2, 3), M = N = 3 gives  | 1 3 2 |
                                    | 2 1 3 |
                                    | 3 2 1 |

    Displacement pair (Z_1, Z_1), rank 0: a circulant commutes with the rotation. (TR2024-157, Table 1, prints B = I,
    for which no circulant but a trivial one has low rank.) Source: SciPy's `scipy.linalg.circulant(c)`.
    """

    name: ClassVar[str] = "circulant"
    marker: ClassVar[str] = "s"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    @property
    def period(self) -> int:
        """L = max(M, N), the length of the full circulant."""
        return max(self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        return {"c": zeros(self.period)}

    def entries(self, c: Tensor) -> Tensor:
        return self.strip(0, self.rows, c)

    def strip(self, start: int, stop: int, c: Tensor) -> Tensor:
        from_top_right = c.roll(self.cols - 1 - start, dims=-1)
        diagonals = torch.cat((from_top_right, from_top_right), dim=-1)[..., : stop - start + self.cols - 1]
        return toeplitz_entries(diagonals, self.cols)

    def pullback(self, grad: Tensor, start: int = 0, *, c: Tensor) -> dict[str, Tensor]:
        diagonals = diagonal_sums(grad)
        twice = pad(diagonals, (0, 2 * self.period - diagonals.shape[-1])).unflatten(-1, (2, self.period))
        return {"c": twice.sum(dim=-2).roll(start - self.cols + 1, dims=-1)}

    def operators(self, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, 1.0)

    @property
    def displacement_rank(self) -> int:
        return 0

    def convolutions(self, c: Tensor) -> tuple[Convolution, ...]:
        return (Convolution(c, self.rows, self.cols, period=self.period),)
