"""Toeplitz: constant along each diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from structune.structures.base import Structure
from structune.structures.convolution import Convolution
from structune.structures.families.hankel import antidiagonal_sums, hankel_entries
from structune.structures.generator import Generator, zeros
from structune.structures.registry import register
from structune.structures.shift import shift


def toeplitz_entries(t: Tensor, cols: int) -> Tensor:
    """W[i, j] = t[i − j + cols − 1], from t (…, rows + cols − 1): a Hankel matrix upside down."""
    return hankel_entries(t.flip(-1), cols).flip(-2)


def diagonal_sums(matrix: Tensor) -> Tensor:
    """s[k] = Σ_{i−j+N−1=k} A[i, j], the adjoint of `toeplitz_entries`: (…, M, N) to (…, M + N − 1)."""
    return antidiagonal_sums(matrix.flip(-2)).flip(-1)


@register
@dataclass(frozen=True)
class Toeplitz(Structure):
    """W[i, j] = t[i − j + N − 1] with t (M + N − 1,): the first row backwards, then the first column.

    t = (1, 2, 3, 4), M = 2, N = 3 gives  | 3 2 1 |
                                          | 4 3 2 |

    Displacement pair (Z_1, Z_−1), rank 2. Source: TR2024-157, Table 1 and Figure 1;
    SciPy's `scipy.linalg.toeplitz(t[N−1:], t[N−1::−1])`.
    """

    name: ClassVar[str] = "toeplitz"
    marker: ClassVar[str] = "o"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    def generators(self) -> dict[str, Generator]:
        return {"t": zeros(self.rows + self.cols - 1)}

    def entries(self, t: Tensor) -> Tensor:
        return toeplitz_entries(t, self.cols)

    def strip(self, start: int, stop: int, t: Tensor) -> Tensor:
        return toeplitz_entries(t[..., start : stop + self.cols - 1], self.cols)

    def pullback(self, grad: Tensor, start: int = 0, *, t: Tensor) -> dict[str, Tensor]:
        return {"t": pad(diagonal_sums(grad), (start, self.rows - start - grad.shape[-2]))}

    def operators(self, t: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, -1.0)

    @property
    def displacement_rank(self) -> int:
        return 2

    def convolutions(self, t: Tensor) -> tuple[Convolution, ...]:
        return (Convolution(t, self.rows, self.cols, offset=self.cols - 1),)
