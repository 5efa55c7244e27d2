"""How ΔW is cut into blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """An out×in matrix cut into P×Q equal blocks of M×N, the last ones padded with zeros where sizes do not divide.

    Args:
        out_features: rows of the matrix.
        in_features: columns of the matrix.
        rows: M, rows of a block.
        cols: N, columns of a block.
    """

    out_features: int
    in_features: int
    rows: int
    cols: int

    @classmethod
    def cut(
        cls, out_features: int, in_features: int, *, block_size: int | Literal["gcd"] | None, num_splits: int | None
    ) -> Grid:
        """Square blocks of `block_size` (C3A), or `num_splits` blocks per axis (HyDRA): exactly one of them.

        `block_size="gcd"` is the largest that divides both sizes, the largest that C3A's paper allows.

        Raises:
            ValueError: both or neither given, not a positive integer, larger than the matrix allows, or "gcd" where the
                sizes have no common divisor.
        """
        asked = block_size
        if block_size == "gcd":
            block_size = math.gcd(out_features, in_features)
        given: dict[str, int | None] = {"out_features": out_features, "in_features": in_features}
        given |= {"block_size": block_size, "num_splits": num_splits}
        for name, value in given.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r} must be an integer of at least 1")
        if (block_size is None) == (num_splits is None):
            raise ValueError(
                f"block_size={asked} and num_splits={num_splits}: give exactly one of them, "
                "block_size for square blocks of that size or num_splits for that many blocks per axis"
            )
        size = f"a weight of {out_features}×{in_features}"
        if block_size is not None:
            largest = max(out_features, in_features)
            if block_size > largest:
                raise ValueError(f"block_size={block_size} is larger than {size}: choose at most {largest}")
            if asked == "gcd" and block_size == 1 < min(out_features, in_features):
                raise ValueError(
                    f"block_size='gcd': {size} has sizes without a common divisor, so each entry of the update would "
                    "be a number of its own: give a number, which need not divide, or num_splits"
                )
            return cls(out_features, in_features, block_size, block_size)
        assert num_splits is not None
        smallest = min(out_features, in_features)
        if num_splits > smallest:
            raise ValueError(f"num_splits={num_splits} cuts {size} finer than its entries: choose at most {smallest}")
        return cls(out_features, in_features, -(-out_features // num_splits), -(-in_features // num_splits))

    @property
    def block_rows(self) -> int:
        """P, how many blocks lie above one another."""
        return -(-self.out_features // self.rows)

    @property
    def block_cols(self) -> int:
        """Q, how many blocks lie side by side."""
        return -(-self.in_features // self.cols)

    @property
    def num_blocks(self) -> int:
        """P·Q."""
        return self.block_rows * self.block_cols

    def split(self, x: Tensor) -> Tensor:
        """Inputs (…, in) to (…, Q, N), padded with zeros."""
        padding = self.block_cols * self.cols - self.in_features
        padded = F.pad(x, (0, padding)) if padding else x
        return padded.reshape(*x.shape[:-1], self.block_cols, self.cols)

    def join(self, y: Tensor) -> Tensor:
        """Outputs (…, P, M) to (…, out), cropped."""
        return y.flatten(-2)[..., : self.out_features]

    def assemble(self, blocks: Tensor) -> Tensor:
        """Blocks (…, P, Q, M, N) to the matrix (…, out, in), cropped."""
        padded = blocks.transpose(-3, -2).flatten(-2).flatten(-3, -2)
        return padded[..., : self.out_features, : self.in_features]
