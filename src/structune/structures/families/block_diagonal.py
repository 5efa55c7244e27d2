"""Block-diagonal: dense blocks along the diagonal, zero elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune.structures.base import Structure
from structune.structures.generator import Generator, zeros
from structune.structures.partition import Cut
from structune.structures.registry import register


@register
@dataclass(frozen=True)
class BlockDiagonal(Structure):
    """W = diag(B_0, …, B_{k−1}) with B (k, ⌈M / k⌉, ⌈N / k⌉): B_κ in the κ-th of k pieces of rows and columns.

    B = (1 2), (3 4), M = 2, N = 4 gives  | 1 2 0 0 |
                                          | 0 0 3 4 |

    Where k does not divide a size, some blocks lose their last row or column. No entry is shared, so there are M N / k
    numbers, and every input reaches one block alone. It is the first factor of a Monarch matrix (arXiv 2204.00595,
    definition 3.1). Source: SciPy's `scipy.linalg.block_diag(*B)`.

    Args:
        num_blocks: k; no more than rows or columns.
    """

    num_blocks: int = 4

    name: ClassVar[str] = "block_diagonal"
    num_splits: ClassVar[int] = 1
    marker: ClassVar[str] = "8"

    @property
    def blocks(self) -> int:
        """k."""
        return min(self.num_blocks, self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        return {"B": zeros(self.blocks, self._rows.longest, self._cols.longest)}

    def entries(self, B: Tensor) -> Tensor:
        return self.strip(0, self.rows, B)

    def strip(self, start: int, stop: int, B: Tensor) -> Tensor:
        block, place = self._rows.where(torch.arange(start, stop, device=B.device))
        return self._spread(B[..., block, place, :], block)

    def pullback(self, grad: Tensor, start: int = 0, *, B: Tensor) -> dict[str, Tensor]:
        row = torch.arange(start, start + grad.shape[-2], device=B.device)
        block, place = self._rows.where(row)
        of_B = torch.zeros_like(B, memory_format=torch.contiguous_format)
        of_B[..., block, place, :] = self._cols.split(grad)[..., row - start, block, :]
        return {"B": of_B}

    def multiply(self, x_TQN: Tensor, B: Tensor) -> Tensor:
        """Each block multiplies its own part of x."""
        y_TPks = torch.einsum("pqksi,tqki->tpks", B.to(x_TQN.dtype), self._cols.split(x_TQN))
        return self._rows.join(y_TPks)

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return num_block_rows * num_block_cols * self.numel

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        """Input and result, block by block."""
        return num_block_cols * self.cols + num_block_rows * self.rows

    def lookup(self, block_row: Tensor, row: Tensor, B: Tensor) -> Tensor:
        block, place = self._rows.where(row)
        return self._spread(B[block_row, :, block, place].movedim(-2, 0), block).movedim(0, -2)

    @property
    def _rows(self) -> Cut:
        return Cut(self.rows, self.blocks)

    @property
    def _cols(self) -> Cut:
        return Cut(self.cols, self.blocks)

    def _spread(self, rows: Tensor, block: Tensor) -> Tensor:
        """Rows of blocks (…, B, p) as rows of W (…, B, N): each in its block's columns, zeros in all others."""
        own = torch.eye(self.blocks, dtype=rows.dtype, device=rows.device)[block].unsqueeze(-1)
        return self._cols.join(rows.unsqueeze(-2) * own)
