"""A generator as a family declares it: its shape, and where its training starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from structune.numerics import draws

Start: TypeAlias = Callable[[Tensor, int], Tensor]
"""Positions of the raw numbers, int64 (…, *shape), and a seed to as many int32 in units of 1 / `draws.ONE`."""


class Generator(NamedTuple):
    """One generator of a block: numbers of one shape, before `Structure.from_raw`, and what they are at the start.

    Args:
        shape: of one block's.
        start: makes the numbers of all blocks, the same on every platform; `zeros` and its like choose it.
    """

    shape: tuple[int, ...]
    start: Start

    @property
    def starts_at_zero(self) -> bool:
        """Whether the numbers are zero at the start."""
        return self.start is draws.zeros


def zeros(*shape: int) -> Generator:
    """Starts at 0; W must be zero for it and its derivative with respect to it must not."""
    return Generator(shape, draws.zeros)


def ones(*shape: int) -> Generator:
    """Starts at 1."""
    return Generator(shape, draws.ones)


def uniform(*shape: int) -> Generator:
    """Starts uniform on (−1, 1)."""
    return Generator(shape, draws.uniform)


def gaussian(*shape: int) -> Generator:
    """Starts normal with mean 0 and variance 1."""
    return Generator(shape, draws.gaussian)


def orthogonal(*shape: int) -> Generator:
    """The last two axes start with orthonormal columns, or rows where there are more columns than rows.

    Raises:
        ValueError: there are no two axes.
    """
    return Generator(_matrices(shape, "orthogonal"), draws.orthogonal)


def identity(*shape: int) -> Generator:
    """The last two axes start as the identity, with zeros around it where they differ.

    Raises:
        ValueError: there are no two axes.
    """
    return Generator(_matrices(shape, "identity"), draws.identity)


def _matrices(shape: tuple[int, ...], start: str) -> tuple[int, ...]:
    if len(shape) < 2:
        raise ValueError(f"{start}{shape}: matrices are meant, so give two sizes or more")
    return shape
