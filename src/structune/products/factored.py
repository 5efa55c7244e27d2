"""`factored`: the product that a family brings itself, made of fewer multiplications than its blocks have entries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.products.algorithm import Algorithm
from structune.structures import Structure


class Factored(Algorithm):
    """`Structure.multiply`."""

    is_native = True

    def supports(self, structure: Structure) -> bool:
        """Whether the family has a product of its own."""
        return structure.has_own_product

    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
        return structure.multiply(x_TQN, **generators).to(x_TQN.dtype)
