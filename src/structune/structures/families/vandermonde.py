"""Vandermonde: the powers of one node per row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.base import Structure
from structune.structures.generator import Generator, uniform
from structune.structures.nodes import nodes_on_interval, raw_of_nodes
from structune.structures.registry import register
from structune.structures.shift import shift


def powers(v: Tensor, count: int) -> Tensor:
    """V[i, j] = v_i^j for 0 ≤ j < count: (…, M) to (…, M, count), with 0⁰ = 1.

    By doubling, V ← [V, v^m V] for m = 1, 2, 4, …; only the v^m, numbers and not matrices, are worked out by `pow`.
    """
    v = v.unsqueeze(-1)
    V = v**0
    while (m := V.shape[-1]) < count:
        V = torch.cat((V, V[..., : count - m] * v**m), dim=-1)
    return V[..., :count]


def powers_pullback(grad: Tensor, V: Tensor) -> Tensor:
    """The gradient of ⟨grad, V⟩ with respect to v: v̄_i = Σ_j j V[i, j − 1] grad[i, j], (…, M, count) to (…, M)."""
    exponents = torch.arange(1, V.shape[-1], device=V.device, dtype=V.dtype)
    return (V[..., :-1] * grad[..., 1:]) @ exponents


@register
@dataclass(frozen=True)
class Vandermonde(Structure):
    """W[i, j] = v_i^j with nodes v (M,). Displacement pair (diag v, Z_0), rank 1.

    v = (2, 3), N = 3 gives  | 1 2 4 |
                             | 1 3 9 |

    Source: TR2024-157, Table 1; NumPy's `numpy.vander(v, N, increasing=True)`. Powers overflow, so raw numbers pass
    through v = sin(π raw / 2) ∈ [−1, 1]: uniform raw numbers become Chebyshev-distributed nodes, whose Vandermonde
    matrices are the best conditioned real ones, and no entry moves faster than O(√N) with its raw number.
    """

    name: ClassVar[str] = "vandermonde"
    learning_rate: ClassVar[float] = 1e-2  # TR2024-157, Appendix B
    marker: ClassVar[str] = "v"
    raw_step: ClassVar[float] = 0.1  # a node moves its whole row at once, its high powers most

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n) ** 2

    def generators(self) -> dict[str, Generator]:
        return {"v": uniform(self.rows)}

    def entries(self, v: Tensor) -> Tensor:
        return powers(v, self.cols)

    def strip(self, start: int, stop: int, v: Tensor) -> Tensor:
        return powers(v[..., start:stop], self.cols)

    def pullback(self, grad: Tensor, start: int = 0, *, v: Tensor) -> dict[str, Tensor]:
        stop = start + grad.shape[-2]
        V = powers(v[..., start:stop], self.cols)
        return {"v": pad(powers_pullback(grad, V), (start, self.rows - stop))}

    def operators(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.diag(v), shift(self.cols, 0.0)

    @property
    def displacement_rank(self) -> int:
        return 1

    def from_raw(self, v: Tensor) -> dict[str, Tensor]:
        return {"v": nodes_on_interval(v)}

    def to_raw(self, v: Tensor) -> dict[str, Tensor]:
        return {"v": raw_of_nodes(v)}
