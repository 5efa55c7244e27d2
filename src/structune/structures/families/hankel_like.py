"""Hankel-like: sums of rotated circulant times upper-triangular Toeplitz matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from structune.numerics.cyclic import cyclic_convolution
from structune.structures.convolution import Convolution
from structune.structures.diagonals import DiagonalRecursion, thin_steps
from structune.structures.registry import register
from structune.structures.shift import shift


@register
@dataclass(frozen=True)
class HankelLike(DiagonalRecursion):
    """The solution W of Z_1 W − W Z_0ᵀ = Σ_l g_l h_lᵀ with G, H (R, n), n = max(M, N), cropped to M×N.

    Column by column, Z_1 W e_j = W e_{j−1} + F e_j with F = Σ_l g_l h_lᵀ, hence
    W[i, j] = Σ_l Σ_{k ≤ j} g_l[(i + j + 1 − k) mod n] h_l[k], that is W = Σ_l C(g_l) K(Z_0, h_l)ᵀ with the Hankel
    circulant C(g)[i, p] = g[(i + p + 1) mod n]. Its entries obey W[i, j] = W[i + 1, j − 1] + F[i + 1, j], and so W is
    built, from the last row upwards.
    Displacement pair (Z_1, Z_0ᵀ), rank R. Source: TR2024-157, Table 1; solved here.
    """

    name: ClassVar[str] = "hankel_like"
    marker: ClassVar[str] = "X"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    def steps(self, start: int, stop: int, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        """Of the strip upside down."""
        n, N = self.order, self.cols
        below, used = G.roll(-1, dims=-1), H[..., :N]
        upwards = below[..., start:stop].flip(-1)
        return thin_steps(
            upwards,
            used,
            first_row=cyclic_convolution(below.roll(1 - stop, dims=-1), used, 2 * n)[..., :N],
            first_column=(upwards * used[..., :1]).sum(dim=-2),
            last_column=cyclic_convolution(below, used, n).roll(1 - N, dims=-1)[..., start:stop].flip(-1),
        )

    def strip(self, start: int, stop: int, G: Tensor, H: Tensor) -> Tensor:
        return super().strip(start, stop, G, H).flip(-2)

    def pullback(self, grad: Tensor, start: int = 0, **generators: Tensor) -> dict[str, Tensor]:
        return super().pullback(grad.flip(-2), start, **generators)

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, 0.0).T

    def convolutions(self, G: Tensor, H: Tensor) -> tuple[Convolution, ...]:
        n = self.order
        upper_triangular = Convolution(H[..., : self.cols].flip(-1), n, self.cols, offset=self.cols - 1)
        hankel_circulant = Convolution(G, self.rows, n, period=n, reverse=True)
        return upper_triangular, hankel_circulant
