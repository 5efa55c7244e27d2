"""Each generator entry is a mean of all numbers of the pool with random signs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune import pool
from structune.numerics.hashing import PROJECTION_STREAM, derive_seed
from structune.pool_maps.pool_map import PoolMap
from structune.pool_maps.signs import both_signs, with_signs


@dataclass(frozen=True)
class Projection(PoolMap):
    """A dense matrix R of ±1/√P, which is never made: R = S H C / √P.

    C puts the P numbers, each with a random sign, at random places among n = 2^m ≥ max(P, D), the rest being zero; H
    is Hadamard's matrix of that size; S takes the first D and gives each a random sign. Entries of R are pairwise
    independent signs over the seeds. Reading takes n log₂ n additions and, beside the tables, 2n numbers of memory,
    however large P is. They are additions of two numbers each in an order of their own: the same bits everywhere, and
    nothing that autocast or tf32 would round.

    Where the index map gives P different entries at most, all D are different here, as long as D ≤ 2^P: it is for
    pools that are tiny.

    Source: Ailon and Chazelle, The fast Johnson-Lindenstrauss transform, SIAM J. Comput. 39 (2009); for trained numbers
    Li et al., arXiv 1804.08838 (Fastfood). TinyLoRA, arXiv 2602.04118, stores a dense Gaussian tensor in its place.
    """

    name: ClassVar[str] = "projection"

    @property
    def order(self) -> int:
        """n, the size of Hadamard's matrix."""
        largest: int = max(self.pool_size, self.num_blocks * self.block_numel)
        return 1 << (largest - 1).bit_length()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.pool_size,), (self.pool_size,), (self.num_blocks, self.block_numel)

    def draw(self, seed: int, offset: int = 0) -> tuple[Tensor, ...]:
        seed = derive_seed(derive_seed(seed, PROJECTION_STREAM), offset)  # each matrix has its own
        signs, places, rows = (derive_seed(seed, stream) for stream in range(3))
        numbers = torch.arange(self.pool_size, device="cpu")
        read = torch.arange(self.num_blocks * self.block_numel, device="cpu").view(self.num_blocks, self.block_numel)
        return (
            with_signs(numbers, self.pool_size, signs),
            pool.index_map(self.order, 1, self.pool_size, places)[0],
            with_signs(read, self.order, rows),
        )

    def read(self, numbers: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        signed, places, rows = tables
        scaled = numbers * (1 / math.sqrt(self.pool_size))
        spread = scaled.new_zeros(self.order).scatter(0, places, both_signs(scaled)[signed])
        return both_signs(hadamard(spread))[rows]


def hadamard(x: Tensor) -> Tensor:
    """H x for Hadamard's matrix H[i, j] = (−1)^(number of ones in i and j), (n,) to (n,), n a power of two.

    n = 4 gives  | 1  1  1  1 |
                 | 1 −1  1 −1 |
                 | 1  1 −1 −1 |
                 | 1 −1 −1  1 |
    """
    size, half = x.shape[0], 1
    while half < size:
        pairs = x.view(-1, 2, half)
        first, second = pairs[:, 0], pairs[:, 1]
        x, half = torch.stack((first + second, first - second), dim=1).view(size), 2 * half
    return x
