"""What every map of a pool shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from structune.numerics.hashing import SIGN_STREAM, derive_seed, hash64


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


def with_signs(index: Tensor, size: int, seed: int, offset: int = 0) -> Tensor:
    """An index into `both_signs` of `size` numbers: each entry of `index`, or that entry + size, which is −1 times it.

    The signs are the top bits of a hash of the entries' positions.
    Source: Chen et al., Compressing neural networks with the hashing trick, arXiv 1504.04788, section 4.2 (ξ).

    Args:
        index: int64, any shape, values in 0 … size − 1.
        size: how many numbers it is an index into.
        seed: any integer.
        offset: position of the first entry.
    """
    position = torch.arange(offset, offset + index.numel(), device="cpu").view(index.shape)
    negative = hash64(position, derive_seed(seed, SIGN_STREAM)) < 0
    return index + size * negative


def both_signs(numbers: Tensor) -> Tensor:
    """(n,) to (2n,): the numbers, and −1 times them."""
    return torch.cat((numbers, -numbers))
