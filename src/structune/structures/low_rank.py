"""Low rank: LoRA's own structure, the case A = I, B = 0 of displacement rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune.structures.base import RankedStructure, unit_scale


@dataclass(frozen=True)
class LowRank(RankedStructure):
    """W = G H with G (M, R) and H (R, N). Displacement pair (I, 0), rank R. Source: TR2024-157, Table 1."""

    name: ClassVar[str] = "low_rank"

    def generators(self) -> dict[str, tuple[int, ...]]:
        return {"G": (self.rows, self.rank), "H": (self.rank, self.cols)}

    def entries(self, G: Tensor, H: Tensor) -> Tensor:  # type: ignore[override]
        return G @ H

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        identity = torch.eye(self.rows, dtype=torch.float64)
        return identity, torch.zeros_like(identity)

    def factors(self, G: Tensor, H: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return G, H

    def from_raw(self, G: Tensor, H: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        scale = unit_scale(self.rank)
        return {"G": G * scale, "H": H * scale}
