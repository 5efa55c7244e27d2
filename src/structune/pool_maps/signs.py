"""Random signs, as a choice among the numbers and −1 times the numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from structune.numerics.hashing import SIGN_STREAM, derive_seed, hash64


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
