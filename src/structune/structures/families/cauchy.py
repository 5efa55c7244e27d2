"""Cauchy: the reciprocals of differences of row and column nodes."""

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


def reciprocal_differences(u: Tensor, v: Tensor) -> Tensor:
    """C[i, j] = 1 / (u_i − v_j): (…, M) and (…, N) to (…, M, N)."""
    return (u.unsqueeze(-1) - v.unsqueeze(-2)).reciprocal()


def interlaced_nodes(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Raw numbers (…, M), (…, N) to u_i = i + sin(π u_i / 2) / 8 and v_j = j + 1/2 + sin(π v_j / 2) / 8.

    Row nodes lie around the integers and column nodes around the half-integers, never closer than 1/4, so no entry of
    1 / (u_i − v_j) exceeds 4; without the jitter it is Hilbert's well-conditioned 1 / (i − j − 1/2).
    """
    rows = torch.arange(u.shape[-1], device=u.device)
    cols = torch.arange(v.shape[-1], device=v.device)
    return rows + nodes_on_interval(u) / 8, cols + 0.5 + nodes_on_interval(v) / 8


def raw_of_interlaced(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The raw numbers in [−1, 1] that `interlaced_nodes` maps to these nodes.

    Raises:
        ValueError: a node is farther than 1/8 from its place.
    """
    rows = torch.arange(u.shape[-1], device=u.device)
    cols = torch.arange(v.shape[-1], device=v.device)
    return raw_of_nodes((u - rows) * 8), raw_of_nodes((v - cols - 0.5) * 8)


@register
@dataclass(frozen=True)
class Cauchy(Structure):
    """W[i, j] = 1 / (u_i − v_j) with nodes u (M,), v (N,). Displacement pair (diag u, diag v), rank 1.

    u = (2, 3), v = (0, 1) gives  | 1/2  1  |
                                  | 1/3 1/2 |

    Source: TR2024-157, Table 1. Nodes collide, so raw numbers pass through `interlaced_nodes`.
    """

    name: ClassVar[str] = "cauchy"
    marker: ClassVar[str] = "D"
    raw_step: ClassVar[float] = 10.0  # nodes move by an eighth at most, and only entries near the diagonal feel it

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n) ** 2

    def generators(self) -> dict[str, Generator]:
        return {"u": uniform(self.rows), "v": uniform(self.cols)}

    def entries(self, u: Tensor, v: Tensor) -> Tensor:
        return reciprocal_differences(u, v)

    def strip(self, start: int, stop: int, u: Tensor, v: Tensor) -> Tensor:
        return reciprocal_differences(u[..., start:stop], v)

    def pullback(self, grad: Tensor, start: int = 0, *, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        stop = start + grad.shape[-2]
        of_differences = grad * reciprocal_differences(u[..., start:stop], v).square()  # d(1/x) = −1/x²
        return {"u": pad(-of_differences.sum(dim=-1), (start, self.rows - stop)), "v": of_differences.sum(dim=-2)}

    def operators(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.diag(u), torch.diag(v)

    @property
    def displacement_rank(self) -> int:
        return 1

    def from_raw(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        u, v = interlaced_nodes(u, v)
        return {"u": u, "v": v}

    def to_raw(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        u, v = raw_of_interlaced(u, v)
        return {"u": u, "v": v}
