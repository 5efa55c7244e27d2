"""What a module must offer to be an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from structune.structures import Structure


class Algorithm(Protocol):
    """A way to multiply a grid of blocks by vectors; all algorithms compute the same function."""

    def supports(self, structure: Structure) -> bool:
        """Whether this algorithm can carry out the family's product."""

    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
        """x (T, Q, N) and generators (P, Q, …) to (T, P, M) in x's dtype."""
