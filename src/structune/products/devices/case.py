"""The facts by which an algorithm is chosen: static ones, of what is multiplied and never of its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from structune.structures import Structure


@dataclass(frozen=True)
class Case:
    """A grid of blocks and a batch of vectors.

    Args:
        structure: the block, with its sizes.
        num_block_rows: P.
        num_block_cols: Q.
        tokens: T.
        dtype: in which matrices are multiplied by the vectors: theirs, or autocast's.
        builds_strips: whether `fold` can carry out the family's product.
        has_weight: whether ΔW may be added to a frozen W of the vectors' dtype.
        grad: whether gradients are recorded.
    """

    structure: Structure
    num_block_rows: int
    num_block_cols: int
    tokens: int
    dtype: torch.dtype
    builds_strips: bool
    has_weight: bool
    grad: bool

    @property
    def num_blocks(self) -> int:
        """P·Q."""
        return self.num_block_rows * self.num_block_cols

    @property
    def entries(self) -> int:
        """Of the whole matrix: multiplications that it takes for each token."""
        return self.num_blocks * self.structure.rows * self.structure.cols

    @property
    def width(self) -> float:
        """√(in·out)."""
        return math.sqrt(self.entries)

    @property
    def is_half(self) -> bool:
        """Whether products are in bf16 or fp16."""
        return self.dtype not in (torch.float32, torch.float64)

    @property
    def folds(self) -> bool:
        """Whether W + ΔW may stand for both: in half precision the sum would round small updates away."""
        return self.has_weight and self.builds_strips and not self.is_half

    def own_product(self, moving: float) -> float:
        """What the family's own product costs for each token, where writing and reading a number costs `moving`."""
        grid = self.num_block_rows, self.num_block_cols
        return self.structure.multiplications(*grid) + moving * self.structure.moved(*grid)
