"""Tokens in pieces, so that what is worked out for each of them stays in the cache, and never all of it in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 3 << 19, "cuda": 64 << 20}
"""Of intermediate numbers per piece: what two cores' second-level caches hold; on a GPU what fills it."""


def chunk_size(numbers_per_token: int, item_size: int, device_type: str) -> int:
    """How many tokens have CHUNK_BYTES of numbers, at least one."""
    return max(1, CHUNK_BYTES.get(device_type, CHUNK_BYTES["cuda"]) // (numbers_per_token * item_size))


def chunks(tokens: int, size: int) -> Iterator[slice]:
    """Slices of 0 … tokens − 1, each of `size` tokens but the last."""
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


class Padded:
    """Vectors (T, …, n) in some dtype, read a chunk of tokens at a time as vectors (…, length) in another.

    One buffer serves all chunks: its tail is zero once and for all. What is read is overwritten by the next reading.
    """

    def __init__(self, x: Tensor, length: int, dtype: torch.dtype) -> None:
        self.x, self.length, self.dtype = x, length, dtype
        self.buffer: Tensor | None = None

    def __getitem__(self, part: slice) -> Tensor:
        piece = self.x[part]
        if piece.shape[-1] == self.length:
            return piece.to(self.dtype)
        if self.buffer is None:  # the first chunk is the longest
            self.buffer = piece.new_zeros(*piece.shape[:-1], self.length, dtype=self.dtype)
        padded = self.buffer[: piece.shape[0]]
        padded[..., : piece.shape[-1]] = piece
        return padded
