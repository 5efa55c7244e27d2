"""The pool: which block reads which number, and the numbers that a seed alone determines.

Everything here is integer arithmetic of our own (SplitMix64 as a counter-based hash, a stable sort), so it gives the
same on every device, platform and library version. `SAMPLER_VERSION` names it; golden tests pin it.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLER_VERSION = 1
"""Version of the index map and of the uniform numbers; stored in every adapter's config."""

UNIFORM_STEP = 2.0**-24
"""`uniform_integers` times this is uniform on (−1, 1)."""

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_SHUFFLE_STREAM = 1
_VALUE_STREAM = 2
SIGN_STREAM = 11
PROJECTION_STREAM = 12


def _signed(word: int) -> int:
    """The 64-bit word as the signed integer that int64 tensors hold."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 words: the sign bit moves like any other."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def hash64(counter: Tensor, seed: int) -> Tensor:
    """SplitMix64's output function at `seed` + (counter + 1)·γ, as int64 words.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.

    Args:
        counter: int64, any shape.
        seed: any integer; taken modulo 2⁶⁴.
    """
    x = (counter + 1) * _signed(_GOLDEN_GAMMA) + _signed(seed)
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def derive_seed(seed: int, stream: int) -> int:
    """A new seed for an independent stream: hash64 of the stream number at `seed`."""
    return int(hash64(torch.tensor(_signed(stream), device="cpu"), seed))


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
    keys = hash64(counter, derive_seed(seed, _SHUFFLE_STREAM))
    return keys.argsort(dim=1, stable=True).flatten()[start : start + demand].view(num_blocks, block_numel)


def uniform_integers(count: int, seed: int) -> Tensor:
    """`count` odd integers k with |k| < 2²⁴, int32 on the CPU; k · UNIFORM_STEP is uniform on (−1, 1), exact in fp32.

    Kept as integers, no cast of a module to a narrower float can change them.
    """
    words = _shift_right(hash64(torch.arange(count, device="cpu"), derive_seed(seed, _VALUE_STREAM)), 40)
    return (2 * words - (1 << 24) + 1).to(torch.int32)
