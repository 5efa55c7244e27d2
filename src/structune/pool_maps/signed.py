"""Each generator entry is one number of the pool, or −1 times it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from structune.pool_maps.index import IndexMap
from structune.pool_maps.signs import both_signs, with_signs


@dataclass(frozen=True)
class SignedMap(IndexMap):
    """The index map with a random sign for each entry, as hashed networks have it (arXiv 1504.04788).

    Without signs, numbers that are read often pull the rows of ΔW towards their common mean: two sums over entries
    that hold the same number always have the same sign. With them they are uncorrelated, for every P and every x.
    """

    name: ClassVar[str] = "signed"

    def draw(self, seed: int, offset: int = 0) -> tuple[Tensor, ...]:
        (index,) = super().draw(seed, offset)
        return (with_signs(index, self.pool_size, seed, offset),)

    def read(self, numbers: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        return super().read(both_signs(numbers), tables)
