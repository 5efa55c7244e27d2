"""Numbers to start from: int32 multiples of 2⁻²⁴ that a seed alone determines, the same on every platform.

Each function maps the numbers' positions in the whole, int64 (…, *shape), and a seed to as many int32, in units of
1 / ONE. As integers no cast of a module to a narrower float can change them. Nothing but integer arithmetic and
correctly rounded elementwise operations in fp64 is used: no libm, no sum whose order a library chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structune.numerics.hashing import NORMAL_STREAM, UNIFORM_STREAM, derive_seed, hash64, shift_right

ONE = 1 << 24
"""What stands for 1."""


def zeros(counter: Tensor, seed: int) -> Tensor:
    """0 everywhere."""
    return torch.zeros_like(counter, dtype=torch.int32)


def ones(counter: Tensor, seed: int) -> Tensor:
    """1 everywhere."""
    return torch.full_like(counter, ONE, dtype=torch.int32)


def identity(counter: Tensor, seed: int) -> Tensor:
    """1 on the diagonal of the last two axes, 0 elsewhere."""
    eye = torch.eye(*counter.shape[-2:], dtype=torch.int32, device=counter.device) * ONE
    return eye.expand(counter.shape)


def uniform(counter: Tensor, seed: int) -> Tensor:
    """Uniform on (−1, 1): odd integers k with |k| < 2²⁴, so that k / ONE is exact in fp32."""
    words = shift_right(hash64(counter, derive_seed(seed, UNIFORM_STREAM)), 40)
    return (2 * words - ONE + 1).to(torch.int32)


def gaussian(counter: Tensor, seed: int) -> Tensor:
    """Normal with mean 0 and variance 1, but for the tails beyond ±6: sums of 12 uniform numbers of 16 bits."""
    seed = derive_seed(seed, NORMAL_STREAM)
    total = torch.zeros_like(counter)
    for word in range(3):
        bits = hash64(3 * counter + word, seed)
        for low in (0, 16, 32, 48):
            total += (bits >> low) & 0xFFFF
    centred = 2 * total - 12 * 0xFFFF  # of variance 12 · (2³² − 1) / 3, that is 2¹⁷ squared
    return (centred * (ONE >> 17)).to(torch.int32)


def orthogonal(counter: Tensor, seed: int) -> Tensor:
    """Last two axes (m, n) with orthonormal columns for m ≥ n, rows for m ≤ n, up to rounding to 1 / ONE.

    Uniformly distributed: Gram and Schmidt's procedure, one column after the other, on columns of normal numbers. It
    takes O(m n min(m, n)), and passes over the matrix min(m, n) times: seconds for 1000×1000, hardly any for 1000×10.
    """
    columns = gaussian(counter, seed).double() + 1.0  # odd, so that a single number is never zero
    wide = counter.shape[-2] < counter.shape[-1]
    columns = columns.mT.contiguous() if wide else columns
    for k in range(columns.shape[-1]):
        column = columns[..., k : k + 1]
        column /= tree_sum(column * column).sqrt()
        rest = columns[..., k + 1 :]
        rest -= column * tree_sum(column * rest)
    return ((columns.mT if wide else columns) * ONE).round().to(torch.int32)


def tree_sum(terms: Tensor) -> Tensor:
    """Sum over the second last axis, which stays with length 1, in an order of our own, by halves; uses `terms` up."""
    while (length := terms.shape[-2]) > 1:
        half = (length + 1) // 2
        terms[..., : length - half, :] += terms[..., half:, :]
        terms = terms[..., :half, :]
    return terms
