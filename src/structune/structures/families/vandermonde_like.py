"""Vandermonde-like: row-scaled Vandermonde times lower-triangular Toeplitz matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.numerics.thin import thin_product
from structune.structures.families.vandermonde import powers, powers_pullback
from structune.structures.generator import Generator, uniform, zeros
from structune.structures.nodes import nodes_on_interval, raw_of_nodes
from structune.structures.ranked import RankedStructure
from structune.structures.registry import register
from structune.structures.shift import shift


@register
@dataclass(frozen=True)
class VandermondeLike(RankedStructure):
    """W = Σ_l diag(g_l) V(v) K(Z_0, h_l) with nodes v (M,), G (R, M), H (R, N).

    K(Z_0, h) is lower-triangular Toeplitz, so W[i, j] = v_i^j Σ_{k < N−j} v_i^k (Σ_l g_l[i] h_l[k]): prefix sums of
    V ∘ GᵀH, read backwards, times V. Displacement pair (diag v, Z_0), rank R. Source: TR2024-157, Table 1. Raw nodes
    pass through v = sin(π raw / 2), as for `vandermonde`.
    """

    name: ClassVar[str] = "vandermonde_like"
    learning_rate: ClassVar[float] = 2e-3  # G and H move as those of the other families do, unlike nodes alone
    marker: ClassVar[str] = "p"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n) ** 2

    def generators(self) -> dict[str, Generator]:
        return {
            "v": uniform(self.rows),
            "G": zeros(self.rank, self.rows),
            "H": uniform(self.rank, self.cols),
        }

    def entries(self, v: Tensor, G: Tensor, H: Tensor) -> Tensor:
        V = powers(v, self.cols)
        return V * (V * thin_product(G, H)).cumsum(dim=-1).flip(-1)

    def strip(self, start: int, stop: int, v: Tensor, G: Tensor, H: Tensor) -> Tensor:
        return self.entries(v[..., start:stop], G[..., start:stop], H)

    def pullback(self, grad: Tensor, start: int = 0, *, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        stop = start + grad.shape[-2]
        around = (start, self.rows - stop)
        v, G = v[..., start:stop], G[..., start:stop]
        V, products = powers(v, self.cols), thin_product(G, H)
        suffixes = (V * grad).cumsum_(dim=-1).flip(-1)  # the gradient of V ∘ GᵀH
        of_powers = (V * products).cumsum_(dim=-1).flip(-1).mul_(grad).addcmul_(products, suffixes)
        of_products = suffixes.mul_(V)
        return {
            "v": pad(powers_pullback(of_powers, V), around),
            "G": pad(H @ of_products.mT, around),
            "H": G @ of_products,
        }

    def operators(self, v: Tensor, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return torch.diag(v), shift(self.cols, 0.0)

    @property
    def fan(self) -> float:
        return self.rank * math.sqrt(self.cols)

    def from_raw(self, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return super().from_raw(v=nodes_on_interval(v), G=G, H=H)

    def to_raw(self, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        return super().to_raw(v=raw_of_nodes(v), G=G, H=H)
