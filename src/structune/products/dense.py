"""`dense`: build the blocks, multiply. The reference for every other algorithm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from structune.products.precision import working_dtype
from structune.structures import Structure
from structune.surroundings import without_autocast


def supports(structure: Structure) -> bool:
    """Every family has a dense form."""
    return True


def blocks(structure: Structure, generators: Mapping[str, Tensor]) -> Tensor:
    """The blocks (P, Q, M, N), in at least fp32 whatever the generators' dtype and under autocast too."""
    dtype = working_dtype(*generators.values())
    generators = {name: g.to(dtype) for name, g in generators.items()}
    with without_autocast(next(iter(generators.values())).device):
        return structure.entries(**generators)


def matrix(structure: Structure, generators: Mapping[str, Tensor]) -> Tensor:
    """The whole matrix (P·M, Q·N)."""
    return blocks(structure, generators).transpose(1, 2).flatten(2).flatten(0, 1)


def multiply(structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y[t, p] = Σ_q W[p, q] x[t, q]: one GEMM with the matrix rounded to x's dtype. Returns (T, P, M)."""
    y: Tensor = torch.nn.functional.linear(x_TQN.flatten(1), matrix(structure, generators).to(x_TQN.dtype))
    return y.unflatten(1, (-1, structure.rows))
