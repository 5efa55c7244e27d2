"""Cauchy-like: a low-rank matrix over differences of nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.numerics.thin import thin_product
from structune.structures.families.cauchy import interlaced_nodes, raw_of_interlaced, reciprocal_differences
from structune.structures.generator import Generator, uniform, zeros
from structune.structures.ranked import RankedStructure
from structune.structures.registry import register


@register
@dataclass(frozen=True)
class CauchyLike(RankedStructure):
    """W[i, j] = Σ_l g_l[i] h_l[j] / (u_i − v_j) with nodes u (M,), v (N,), G (R, M), H (R, N).

    Displacement pair (diag u, diag v), rank R. Source: TR2024-157, Table 1. Raw nodes pass through `interlaced_nodes`.
    """

    name: ClassVar[str] = "cauchy_like"
    marker: ClassVar[str] = "d"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n) ** 2

    def generators(self) -> dict[str, Generator]:
        return {
            "u": uniform(self.rows),
            "v": uniform(self.cols),
            "G": zeros(self.rank, self.rows),
            "H": uniform(self.rank, self.cols),
        }

    def entries(self, u: Tensor, v: Tensor, G: Tensor, H: Tensor) -> Tensor:
        return thin_product(G, H) * reciprocal_differences(u, v)

    def strip(self, start: int, stop: int, u: Tensor, v: Tensor, G: Tensor, H: Tensor) -> Tensor:
        return self.entries(u[..., start:stop], v, G[..., start:stop], H)

    def pullback(
        self, grad: Tensor, start: int = 0, *, u: Tensor, v: Tensor, G: Tensor, H: Tensor
    ) -> dict[str, Tensor]:
        stop = start + grad.shape[-2]
        around = (start, self.rows - stop)
        C, G = reciprocal_differences(u[..., start:stop], v), G[..., start:stop]
        of_products = grad * C
        of_differences = of_products * C * thin_product(G, H)
        return {
            "u": pad(-of_differences.sum(dim=-1), around),
            "v": of_differences.sum(dim=-2),
            "G": pad(H @ of_products.mT, around),
            "H": G @ of_products,
        }

    def operators(self, u: Tensor, v: Tensor, **generators: Tensor) -> tuple[Tensor, Tensor]:
        return torch.diag(u), torch.diag(v)

    def from_raw(self, u: Tensor, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        u, v = interlaced_nodes(u, v)
        return super().from_raw(u=u, v=v, G=G, H=H)

    def to_raw(self, u: Tensor, v: Tensor, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        u, v = raw_of_interlaced(u, v)
        return super().to_raw(u=u, v=v, G=G, H=H)
