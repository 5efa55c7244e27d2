"""Toeplitz-like: sums of circulant times skew-circulant matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from structune.structures.base import CroppedStructure
from structune.structures.convolution import Convolution
from structune.structures.shift import krylov_diagonals, shift
from structune.structures.toeplitz import toeplitz_entries


@dataclass(frozen=True)
class ToeplitzLike(CroppedStructure):
    """W = Σ_l K(Z_1, g_l) K(Z_−1, h_l) with G, H (R, n), n = max(M, N), cropped to M×N; g_l, h_l are their rows.

    K(Z_1, g) is the circulant and K(Z_−1, h) the skew-circulant matrix with that first column.
    Displacement pair (Z_1, Z_−1), rank R. Source: TR2024-157, equation 5.
    """

    name: ClassVar[str] = "toeplitz_like"

    def entries(self, G: Tensor, H: Tensor) -> Tensor:  # type: ignore[override]
        circulant = toeplitz_entries(krylov_diagonals(G, 1.0), self.order)[..., : self.rows, :]
        skew_circulant = toeplitz_entries(krylov_diagonals(H, -1.0), self.order)[..., :, : self.cols]
        return (circulant @ skew_circulant).sum(dim=-3)

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return shift(self.rows, 1.0), shift(self.cols, -1.0)

    def convolutions(self, G: Tensor, H: Tensor) -> tuple[Convolution, ...]:  # type: ignore[override]
        n = self.order
        skew_circulant = Convolution(krylov_diagonals(H, -1.0), n, self.cols, offset=n - 1)
        circulant = Convolution(G, self.rows, n, period=n)
        return skew_circulant, circulant
