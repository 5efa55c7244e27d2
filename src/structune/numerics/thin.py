"""Products of thin matrices whose digits all count."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def may_round(device: torch.device) -> bool:
    """Whether matrix products in fp32 may be rounded on a device, as by TF32, which gives ten of 23 bits."""
    return device.type not in ("cpu", "meta")


def thin_product(G: Tensor, H: Tensor) -> Tensor:
    """Gᵀ H = Σ_l g_l h_lᵀ in full precision, (…, R, M) and (…, R, N) to (…, M, N), for few l.

    ΔW is often the small difference of two blocks, and what rounds each leaves little of it. So where matrix products
    may be rounded, products of single numbers are added up, which nothing rounds.
    """
    if not may_round(G.device):
        return G.mT @ H
    pairs = zip(G.unbind(-2), H.unbind(-2), strict=True)
    return reduce(torch.add, (g.unsqueeze(-1) * h.unsqueeze(-2) for g, h in pairs))
