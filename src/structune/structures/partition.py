"""How a family cuts rows and columns: into factors, or into pieces that follow one another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def nearly_square(size: int) -> int:
    """a ≤ √size, of the left one of two factors, b = ⌈size / a⌉: a divisor if there is one near the root, else ⌊√size⌋.

    Near is b ≤ 4 a, so that a prime is not cut into 1 and itself: 768 = 24 · 32, but 101 < 10 · 11.
    """
    root = math.isqrt(size)
    divisor = next(a for a in range(root, 0, -1) if size % a == 0)
    return divisor if size <= 4 * divisor**2 else root


@dataclass(frozen=True)
class Cut:
    """`size` rows or columns in `pieces` that follow one another, as long as each other or shorter by one.

    Piece k begins at ⌊k size / pieces⌋. None is empty, as long as there are no more pieces than rows.

    Args:
        size: how many rows or columns.
        pieces: how many pieces, at most `size`.
    """

    size: int
    pieces: int

    @property
    def longest(self) -> int:
        """⌈size / pieces⌉, the length of the last piece and of every other one with zeros at its end."""
        return -(-self.size // self.pieces)

    def where(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The piece that each of these rows, int64, belongs to, and its place in it."""
        piece = ((index + 1) * self.pieces - 1).div(self.size, rounding_mode="floor")
        return piece, index - (piece * self.size).div(self.pieces, rounding_mode="floor")

    def split(self, whole: Tensor) -> Tensor:
        """(…, size) to (…, pieces, longest)."""
        if self.size % self.pieces == 0:
            return whole.unflatten(-1, (self.pieces, self.longest))
        share = torch.arange(self.pieces + 1, device=whole.device) * self.size
        begin = share.div(self.pieces, rounding_mode="floor")
        index = begin[:-1, None] + torch.arange(self.longest, device=whole.device)
        return whole[..., index] * (index < begin[1:, None])

    def join(self, pieces: Tensor) -> Tensor:
        """(…, pieces, longest) to (…, size), without what stands behind shorter pieces."""
        whole = pieces.flatten(-2)
        if self.size % self.pieces == 0:
            return whole
        piece, place = self.where(torch.arange(self.size, device=pieces.device))
        return whole[..., piece * self.longest + place]
