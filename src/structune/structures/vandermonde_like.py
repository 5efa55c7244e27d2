"""Vandermonde-like: row-scaled Vandermonde times lower-triangular Toeplitz matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune.structures.base import RankedStructure, nodes_on_interval, unit_scale
from structune.structures.shift import shift
from structune.structures.vandermonde import powers


@dataclass(frozen=True)
class VandermondeLike(RankedStructure):
    """W = Σ_l diag(g_l) V(v) K(Z_0, h_l) with nodes v (M,), G (R, M), H (R, N).

    K(Z_0, h) is lower-triangular Toeplitz, so W[i, j] = v_i^j Σ_{k < N−j} v_i^k (Σ_l g_l[i] h_l[k]): prefix sums of
    V ∘ GᵀH, read backwards, times V. Displacement pair (diag v, Z_0), rank R. Source: TR2024-157, Table 1. Raw nodes
    pass through v = sin(π raw / 2), as for `vandermonde`.
    """

    name: ClassVar[str] = "vandermonde_like"

    def generators(self) -> dict[str, tuple[int, ...]]:
        return {"v": (self.rows,), "G": (self.rank, self.rows), "H": (self.rank, self.cols)}

    def entries(self, v: Tensor, G: Tensor, H: Tensor) -> Tensor:  # type: ignore[override]
        V = powers(v, self.cols)
        return V * (V * (G.mT @ H)).cumsum(dim=-1).flip(-1)

    def operators(self, v: Tensor, **generators: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return torch.diag(v), shift(self.cols, 0.0)

    def from_raw(self, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        scale = unit_scale(self.rank * math.sqrt(self.cols))
        return {"v": nodes_on_interval(v), "G": G * scale, "H": H * scale}
