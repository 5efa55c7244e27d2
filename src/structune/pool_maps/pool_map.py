"""What every map of a pool shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class PoolMap(ABC):
    """A linear map from the P numbers of a pool to the D = num_blocks · block_numel numbers that the blocks read.

    It holds sizes, never numbers: which number goes where are int64 tables that follow from a seed, for whoever calls
    it to keep where the numbers are. No file holds them. Every map moves what a block reads by ±η, in root mean square
    over seeds, when every number of the pool moves by ±η, whatever P is; so learning rates mean the same for all P.

    Args:
        pool_size: P.
        num_blocks: blocks of one ΔW.
        block_numel: numbers that one block reads.
    """

    pool_size: int
    num_blocks: int
    block_numel: int

    name: ClassVar[str]
    """The name that files and options have for it."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its tables."""

    @abstractmethod
    def draw(self, seed: int, offset: int = 0) -> tuple[Tensor, ...]:
        """The tables, int64 on the CPU, the same on every platform.

        Args:
            seed: any integer.
            offset: how many numbers other matrices read from the same pool before this one.
        """

    @abstractmethod
    def read(self, numbers: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        """What the blocks read: (P,) to (num_blocks, block_numel), differentiable to any order."""

    def tables(self, seed: int, offset: int, device: torch.device) -> tuple[Tensor, ...]:
        """What `draw` returns, on a device; on meta only the shapes."""
        if device.type == "meta":
            return tuple(torch.empty(shape, dtype=torch.int64, device=device) for shape in self.shapes)
        return tuple(table.to(device) for table in self.draw(seed, offset))
