"""Toeplitz-like: sums of circulant times skew-circulant matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune.numerics.cyclic import cyclic_convolution
from structune.structures.convolution import Convolution
from structune.structures.diagonals import DiagonalRecursion, thin_steps
from structune.structures.registry import register
from structune.structures.shift import shift


@register
@dataclass(frozen=True)
class ToeplitzLike(DiagonalRecursion):
    """W = Σ_l K(Z_1, g_l) K(Z_−1, h_l) with G, H (R, n), n = max(M, N), cropped to M×N; g_l, h_l are their rows.

    K(Z_1, g) is the circulant and K(Z_−1, h) the skew-circulant matrix with that first column. The two commute with
    their shifts, and Z_1 − Z_−1 has one entry, so Z_1 W − W Z_−1 = 2 Σ_l g_l (h_l read backwards)ᵀ. Entry by entry,
    W[i, j] = W[i − 1, j − 1] − 2 Σ_l g_l[i] h_l[n − j], which is how W is built.
    Displacement pair (Z_1, Z_−1), rank R. Source: TR2024-157, equation 5.
    """

    name: ClassVar[str] = "toeplitz_like"
    marker: ClassVar[str] = "h"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    def steps(self, start: int, stop: int, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        n, N = self.order, self.cols
        backwards = H.flip(-1).roll(1, dims=-1)  # h_0, h_{n−1}, …, h_1
        row_of_circulant = G.flip(-1).roll(start + 1, dims=-1)
        row_of_skew_circulant = torch.cat((backwards[..., :1], -backwards[..., 1:]), dim=-1)
        row, wrapped = cyclic_convolution(row_of_circulant, row_of_skew_circulant, 2 * n).split(n, dim=-1)
        last_of_skew_circulant = torch.cat((-H[..., n - N + 1 :], H[..., : n - N + 1]), dim=-1)
        return thin_steps(
            -2 * G[..., start:stop],
            backwards[..., :N],
            first_row=(row - wrapped)[..., :N],
            first_column=cyclic_convolution(G, H, n)[..., start:stop],
            last_column=cyclic_convolution(G, last_of_skew_circulant, n)[..., start:stop],
        )

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, -1.0)

    def convolutions(self, G: Tensor, H: Tensor) -> tuple[Convolution, ...]:
        n = self.order
        skew_circulant = Convolution(H, n, self.cols, period=n, wrap=-1)
        circulant = Convolution(G, self.rows, n, period=n)
        return skew_circulant, circulant
