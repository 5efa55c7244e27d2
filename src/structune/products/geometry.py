"""How long a transform must be to carry out a convolution, and where inputs and outputs lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from structune.structures import Convolution


@dataclass(frozen=True)
class Geometry:
    """A convolution's sizes, and the length L of the cyclic convolution that contains it.

    Args:
        length: L.
        rows: M, outputs kept.
        cols: N, inputs.
        offset: index of the first output.
        kernel_length: K.
        reverse: whether inputs are read backwards.
        wrap: 1 where the kernel is cyclic, −1 where it is negacyclic.
    """

    length: int
    rows: int
    cols: int
    offset: int
    kernel_length: int
    reverse: bool
    wrap: int

    @classmethod
    def of(cls, c: Convolution) -> Geometry:
        """The period, or a fast length at which outputs offset … offset + M − 1 do not meet what wraps around."""
        kernel_length = c.kernel.shape[-1]
        needed = max(c.offset + c.rows, kernel_length + c.cols - 1 - c.offset, c.cols, kernel_length)
        length = c.period or fast_length(needed)
        return cls(length, c.rows, c.cols, c.offset, kernel_length, c.reverse, c.wrap if c.period else 1)

    @property
    def first(self) -> int:
        """The kernel's index that meets the first input in the first output."""
        return self.offset - (self.cols - 1 if self.reverse else 0)

    def numbers(self) -> list[int]:
        """The fields as integers, the form in which operators pass them."""
        return [int(value) for value in astuple(self)]

    @classmethod
    def read(cls, numbers: Sequence[int]) -> Geometry:
        """The reverse of `numbers`."""
        length, rows, cols, offset, kernel_length, reverse, wrap = numbers
        return cls(length, rows, cols, offset, kernel_length, bool(reverse), wrap)


def fast_length(n: int) -> int:
    """The smallest length of at least n whose only prime factors are 2, 3 and 5."""
    best = 1 << (n - 1).bit_length()
    power_of_5 = 1
    while power_of_5 < best:
        odd = power_of_5
        while odd < best:
            best = min(best, odd << (-(-n // odd) - 1).bit_length())
            odd *= 3
        power_of_5 *= 5
    return best


def transformable(c: Convolution) -> Convolution:
    """The same map in the form that is transformed: with its period where that is a fast length and holds everything.

    Else the kernel is written out, and the convolution has no period.

    A negacyclic period must be even as well.
    """
    if c.period is None:
        return c
    fast = fast_length(c.period) == c.period and (c.wrap == 1 or c.period % 2 == 0)
    return c if fast and max(c.offset + c.rows, c.cols) <= c.period else c.unrolled()
