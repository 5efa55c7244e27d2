"""The singular values of a matrix, and what they say about its rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-12  # relative, far below what a singular value's own rounding moves


@dataclass(frozen=True)
class Spectrum:
    """Singular values σ₁ ≥ σ₂ ≥ … ≥ 0 of a matrix, fp64 (min(rows, cols),).

    Examples:
        >>> Spectrum.of(torch.eye(4)).effective_rank
        4.0
    """

    values: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Spectrum:
        """The spectrum of a matrix (rows, cols) of any real dtype, worked out in fp64.

        Raises:
            ValueError: not a matrix, or not all of it is finite.
        """
        if matrix.ndim != 2:
            raise ValueError(f"a spectrum is that of a matrix; found a tensor of shape {tuple(matrix.shape)}")
        if not torch.isfinite(matrix).all():
            raise ValueError("the matrix holds NaN or infinite values")
        return cls(torch.linalg.svdvals(matrix.detach().double()))

    @property
    def frobenius(self) -> float:
        """‖W‖_F = √(Σ σᵢ²)."""
        return float(self.values.norm())

    @property
    def spectral(self) -> float:
        """‖W‖₂ = σ₁."""
        return float(self.values.max())

    @property
    def effective_rank(self) -> float:
        """exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σ σ.

        It is n for a multiple of an n×n orthogonal matrix, 1 for rank one, and 0 by convention for a zero matrix.
        Source: Roy, Vetterli, The effective rank, EUSIPCO 2007.
        """
        total = self.values.sum()
        if total == 0:
            return 0.0
        return float(torch.special.entr(self.values / total).sum().exp())

    def rank_for_energy(self, share: float) -> int:
        """The least k for which the best rank-k approximation keeps `share` of ‖W‖_F² (Eckart, Young); 0 for zero."""
        energy = self.values.square().cumsum(0)
        return int((energy < share * energy[-1] * (1 - _ROUNDING)).sum()) + 1 if energy[-1] > 0 else 0
