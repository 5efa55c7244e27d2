"""The pool: which block reads which number.

Everything here is integer arithmetic of our own (a counter-based hash, a stable sort), so it gives the same on every
device, platform and library version. `SAMPLER_VERSION` names it; golden tests pin it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from structune.numerics.hashing import SHUFFLE_STREAM, derive_seed, hash64

SAMPLER_VERSION = 1
"""Version of the index map and of the numbers to start from; stored in every adapter's config."""


def stream_of(name: str) -> int:
    """The sequence of a seed that goes by a name: the first 8 bytes of the name's SHA-256, as int64.

    It is saved with what it is for, so a checkpoint does not depend on the name staying as it is.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)


def index_map(pool_size: int, num_blocks: int, block_numel: int, seed: int, offset: int = 0) -> Tensor:
    """Which pool entry each block reads: independent shuffles of 0 … P−1, one after the other, cut to the demand.

    Every entry is used equally often (±1); with P = num_blocks · block_numel each is used exactly once. So it is over
    all matrices of one seed that read on where others end.
    Source: TR2024-157, section 3.2, made portable.

    Args:
        pool_size: P, numbers in the pool.
        num_blocks: blocks of one ΔW.
        block_numel: numbers that one block draws.
        seed: any integer.
        offset: how many numbers of the shuffles to pass over, which others read.

    Returns:
        int64 (num_blocks, block_numel) on the CPU, values in 0 … P−1.

    Raises:
        ValueError: a size is below 1, or the offset below 0.
    """
    for name, value, least in (
        ("pool_size", pool_size, 1),
        ("num_blocks", num_blocks, 1),
        ("block_numel", block_numel, 1),
        ("offset", offset, 0),
    ):
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
    demand = num_blocks * block_numel
    first, start = divmod(offset, pool_size)
    rounds = -(-(start + demand) // pool_size)
    counter = torch.arange(first * pool_size, (first + rounds) * pool_size, device="cpu").view(rounds, pool_size)
    keys = hash64(counter, derive_seed(seed, SHUFFLE_STREAM))
    return keys.argsort(dim=1, stable=True).flatten()[start : start + demand].view(num_blocks, block_numel)
