"""`factored`: the product that a family brings itself, made of fewer multiplications than its blocks have entries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.structures import Structure


def supports(structure: Structure) -> bool:
    """Whether the family has a product of its own."""
    return structure.has_own_product


def multiply(structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y[t, p] = Σ_q W[p, q] x[t, q]. Returns (T, P, M) in x's dtype."""
    return structure.multiply(x_TQN, **generators).to(x_TQN.dtype)
