"""Random words that a seed alone determines: SplitMix64 as a counter-based hash, the same on every platform."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB

SHUFFLE_STREAM, UNIFORM_STREAM, NORMAL_STREAM = 1, 2, 3
SIGN_STREAM, PROJECTION_STREAM = 11, 12
"""Streams of a seed, for `derive_seed`, by what is drawn with them: only ever append, adapters depend on them."""


def signed(word: int) -> int:
    """The 64-bit word as the signed integer that int64 tensors hold."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 words: the sign bit moves like any other."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def hash64(counter: Tensor, seed: int) -> Tensor:
    """SplitMix64's output function at `seed` + (counter + 1)·γ, as int64 words.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.

    Args:
        counter: int64, any shape.
        seed: any integer; taken modulo 2⁶⁴.
    """
    x = (counter + 1) * signed(GOLDEN_GAMMA) + signed(seed)
    x = (x ^ shift_right(x, 30)) * signed(MIX_1)
    x = (x ^ shift_right(x, 27)) * signed(MIX_2)
    return x ^ shift_right(x, 31)


def derive_seed(seed: int, stream: int) -> int:
    """A new seed for an independent stream: hash64 of the stream number at `seed`."""
    return int(hash64(torch.tensor(signed(stream), device="cpu"), seed))
