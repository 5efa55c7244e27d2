"""`factored`: two thin GEMMs for blocks that are a product of thin dense factors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from structune.structures import Structure


def supports(structure: Structure) -> bool:
    """Whether the family overrides `factors`."""
    return type(structure).factors is not Structure.factors


def multiply(structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y[t, p] = Σ_q G[p, q] (H[p, q] x[t, q]) in x's dtype. Returns (T, P, M)."""
    G_PQMR, H_PQRN = (f.to(x_TQN.dtype) for f in structure.factors(**generators))
    inner_TPQR = torch.einsum("pqrn,tqn->tpqr", H_PQRN, x_TQN)
    return torch.einsum("pqmr,tpqr->tpm", G_PQMR, inner_TPQR)
