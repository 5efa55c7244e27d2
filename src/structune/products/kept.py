"""What an algorithm worked out, beside a copy of what it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from structune.products.algorithm import Algorithm, Prepared


@dataclass(frozen=True)
class Kept:
    """Kept from call to call, for numbers that nobody says have changed.

    Args:
        numbers: that the update had, a copy.
        scale: that it had.
        algorithm: whose it is.
        prepared: what was worked out.
    """

    numbers: Tensor
    scale: float
    algorithm: Algorithm
    prepared: Prepared

    def holds(self, numbers: Tensor, scale: float, algorithm: Algorithm, dtype: torch.dtype) -> bool:
        """Whether it is what that algorithm would work out for these numbers in that dtype."""
        same = self.scale == scale and self.algorithm is algorithm and self.prepared.dtype == dtype
        return same and torch.equal(self.numbers, numbers)
