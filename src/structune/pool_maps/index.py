"""Each generator entry is one number of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from structune import pool
from structune.pool_maps.pool_map import PoolMap


@dataclass(frozen=True)
class IndexMap(PoolMap):
    """Shuffles of the pool, one after the other: see `pool.index_map`. Source: TR2024-157, section 3.2."""

    name: ClassVar[str] = "index"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.num_blocks, self.block_numel),)

    def draw(self, seed: int, offset: int = 0) -> tuple[Tensor, ...]:
        return (pool.index_map(self.pool_size, self.num_blocks, self.block_numel, seed, offset),)

    def read(self, numbers: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        (index,) = tables
        return numbers[index]
