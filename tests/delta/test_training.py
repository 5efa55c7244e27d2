"""AdamW finds its way at the papers' learning rates."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from structune.delta import StructuredDelta
from structune.testing import moved, sample_inputs

from .conftest import FAMILIES, every_family

LEARNING_RATES = dict.fromkeys(FAMILIES, 0.004) | {
    "circulant": 0.002,
    "toeplitz": 0.002,
    "hankel": 0.002,
    "vandermonde": 0.01,
}
"""HyDRA's, TR2024-157, Appendix B; those of low-rank for the families that it does not list."""


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
def test_training_at_the_papers_learning_rates(family: str, source: str) -> None:
    """AdamW finds its way to a target that the family can express: downhill all along, and well below the start."""
    kwargs: dict[str, Any] = {"num_splits": 2}
    if source == "pooled":
        kwargs["pool_size"] = min(60, StructuredDelta(16, 12, structure=family, num_splits=2).num_trainable)
    target, delta = (StructuredDelta(16, 12, structure=family, **kwargs) for _ in range(2))
    moved(target, size=0.3)
    x, goal = sample_inputs(64, 12, dtype=torch.float32), target.dense().detach()
    optimizer = torch.optim.AdamW([delta.pool], lr=LEARNING_RATES[family], weight_decay=0.0)
    losses = []
    for _ in range(200):
        loss = (delta(x) - x @ goal.T).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tens = [sum(losses[k : k + 10]) for k in range(0, 200, 10)]
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) <= losses[0] * 1.01
    assert all(later < 1.05 * earlier for earlier, later in pairwise(tens))
    assert losses[-1] < 0.5 * losses[0]
