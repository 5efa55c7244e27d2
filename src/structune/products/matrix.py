"""The blocks of a grid, built, and the whole matrix of them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.products.precision import working_dtype
from structune.structures import Structure
from structune.surroundings import without_autocast


def blocks(structure: Structure, generators: Mapping[str, Tensor]) -> Tensor:
    """The blocks (P, Q, M, N), in at least fp32 whatever the generators' dtype and under autocast too."""
    dtype = working_dtype(*generators.values())
    generators = {name: g.to(dtype) for name, g in generators.items()}
    with without_autocast(next(iter(generators.values())).device):
        return structure.entries(**generators)


def matrix(structure: Structure, generators: Mapping[str, Tensor]) -> Tensor:
    """The whole matrix (P·M, Q·N)."""
    return blocks(structure, generators).transpose(1, 2).flatten(2).flatten(0, 1)
