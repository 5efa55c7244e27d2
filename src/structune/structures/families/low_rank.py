"""Low rank: LoRA's own structure, the case A = I, B = 0 of displacement rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.generator import Generator, uniform, zeros
from structune.structures.ranked import RankedStructure
from structune.structures.registry import register


@register
@dataclass(frozen=True)
class LowRank(RankedStructure):
    """W = G H with G (M, R) and H (R, N). Displacement pair (I, 0), rank R. Source: TR2024-157, Table 1."""

    name: ClassVar[str] = "low_rank"
    learning_rate: ClassVar[float] = 4e-3  # TR2024-157, Appendix B
    learning_rate_as_lora: ClassVar[float | None] = 8e-3  # docs/results/glue-small.md
    num_splits: ClassVar[int] = 1
    marker: ClassVar[str] = "P"

    @classmethod
    def growth(cls, n: float) -> float:
        return n

    def generators(self) -> dict[str, Generator]:
        return {"G": zeros(self.rows, self.rank), "H": uniform(self.rank, self.cols)}

    def entries(self, G: Tensor, H: Tensor) -> Tensor:
        return G @ H

    def strip(self, start: int, stop: int, G: Tensor, H: Tensor) -> Tensor:
        return G[..., start:stop, :] @ H

    def pullback(self, grad: Tensor, start: int = 0, *, G: Tensor, H: Tensor) -> dict[str, Tensor]:
        stop = start + grad.shape[-2]
        return {
            "G": pad(grad @ H.mT, (0, 0, start, self.rows - stop)),
            "H": G[..., start:stop, :].mT @ grad,
        }

    def operators(self, **generators: Tensor) -> tuple[Tensor, Tensor]:
        identity = torch.eye(self.rows, dtype=torch.float64)
        return identity, torch.zeros_like(identity)

    def multiply(self, x_TQN: Tensor, G: Tensor, H: Tensor) -> Tensor:
        inner_TPQR = torch.einsum("pqrn,tqn->tpqr", H.to(x_TQN.dtype), x_TQN)
        return torch.einsum("pqmr,tpqr->tpm", G.to(x_TQN.dtype), inner_TPQR)

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return num_block_rows * num_block_cols * self.rank * (self.rows + self.cols)

    def lookup(self, block_row: Tensor, row: Tensor, G: Tensor, H: Tensor) -> Tensor:
        rows_TQ1R = G[block_row, :, row].unsqueeze(-2)
        return (rows_TQ1R @ H[block_row]).squeeze(-2)

    def axis_of(self, name: str) -> int:
        """Columns of G lie beside one another, rows of H below."""
        return -1 if name == "G" else -2

    def nearest(self, matrix: Tensor) -> dict[str, Tensor]:
        """The truncated singular value decomposition; the rest of a rank beyond min(M, N) is zero."""
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        rank = min(self.rank, S.shape[-1])
        root, more = S[..., :rank].sqrt(), self.rank - rank
        return {
            "G": pad(U[..., :rank] * root.unsqueeze(-2), (0, more)),
            "H": pad(root.unsqueeze(-1) * Vh[..., :rank, :], (0, 0, 0, more)),
        }

    def thin_factors(self, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        return G, H
