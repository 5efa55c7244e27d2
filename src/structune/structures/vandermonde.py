"""Vandermonde: the powers of one node per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.base import Structure, nodes_on_interval
from structune.structures.shift import shift


def powers(v: Tensor, count: int) -> Tensor:
    """V[i, j] = v_i^j for 0 ≤ j < count: (…, M) to (…, M, count), with 0⁰ = 1.

    The column of ones is no power: the second derivative of v⁰ that autograd works out is NaN at v = 0.
    """
    return pad(v.unsqueeze(-1) ** torch.arange(1, count, device=v.device), (1, 0), value=1.0)


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
    raw_step: ClassVar[float] = 0.1  # a node moves its whole row at once, its high powers most

    def generators(self) -> dict[str, tuple[int, ...]]:
        return {"v": (self.rows,)}

    def entries(self, v: Tensor) -> Tensor:  # type: ignore[override]
        return powers(v, self.cols)

    def operators(self, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return torch.diag(v), shift(self.cols, 0.0)

    @property
    def displacement_rank(self) -> int:
        return 1

    def from_raw(self, v: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"v": nodes_on_interval(v)}
