"""Tokens in pieces, so that what is worked out for each of them stays in the cache, and never all of it in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from structune.products.devices import device


def chunk_size(numbers_per_token: int, item_size: int, device_type: str) -> int:
    """How many tokens have as many numbers as the device works out at once, at least one."""
    return max(1, device(device_type).chunk_bytes // (numbers_per_token * item_size))


def chunks(tokens: int, size: int) -> Iterator[slice]:
    """Slices of 0 … tokens − 1, each of `size` tokens but the last."""
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


class Padding:
    """Vectors (T, …, n) of any dtype to vectors (T, …, length) of one dtype, chunk after chunk.

    One buffer serves all chunks: its tail is zero once and for all. What is returned is overwritten by the next call.
    """

    def __init__(self, length: int, dtype: torch.dtype) -> None:
        self.length, self.dtype = length, dtype
        self.buffer: Tensor | None = None

    def __call__(self, chunk: Tensor) -> Tensor:
        if chunk.shape[-1] == self.length:
            return chunk.to(self.dtype)
        if self.buffer is None:  # the first chunk is the longest
            self.buffer = chunk.new_zeros(*chunk.shape[:-1], self.length, dtype=self.dtype)
        padded = self.buffer[: chunk.shape[0]]
        padded[..., : chunk.shape[-1]] = chunk
        return padded
