"""Hankel-like: sums of rotated circulant times upper-triangular Toeplitz matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from structune.structures.base import CroppedStructure
from structune.structures.convolution import Convolution
from structune.structures.hankel import hankel_entries
from structune.structures.shift import krylov_diagonals, shift
from structune.structures.toeplitz import toeplitz_entries


@dataclass(frozen=True)
class HankelLike(CroppedStructure):
    """The solution W of Z_1 W − W Z_0ᵀ = Σ_l g_l h_lᵀ with G, H (R, n), n = max(M, N), cropped to M×N.

    Column by column, Z_1 W e_j = W e_{j−1} + F e_j with F = Σ_l g_l h_lᵀ, hence
    W[i, j] = Σ_l Σ_{k ≤ j} g_l[(i + j + 1 − k) mod n] h_l[k], that is W = Σ_l C(g_l) K(Z_0, h_l)ᵀ with the Hankel
    circulant C(g)[i, p] = g[(i + p + 1) mod n].
    Displacement pair (Z_1, Z_0ᵀ), rank R. Source: TR2024-157, Table 1; solved here.
    """

    name: ClassVar[str] = "hankel_like"

    def entries(self, G: Tensor, H: Tensor) -> Tensor:  # type: ignore[override]
        hankel_circulant = hankel_entries(krylov_diagonals(G, 1.0), self.order)[..., : self.rows, :]
        upper_triangular = toeplitz_entries(krylov_diagonals(H, 0.0), self.order).mT[..., :, : self.cols]
        return (hankel_circulant @ upper_triangular).sum(dim=-3)

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, 0.0).T

    def convolutions(self, G: Tensor, H: Tensor) -> tuple[Convolution, ...]:  # type: ignore[override]
        n = self.order
        upper_triangular = Convolution(H[..., : self.cols].flip(-1), n, self.cols, offset=self.cols - 1)
        hankel_circulant = Convolution(G, self.rows, n, period=n, reverse=True)
        return upper_triangular, hankel_circulant
