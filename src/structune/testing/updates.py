"""Updates ΔW to test with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from structune.delta import StructuredDelta
from structune.structures import Structure
from structune.testing.device import DEVICE
from structune.testing.oracles import oracle_dense
from structune.testing.outcomes import algorithms
from structune.testing.samples import sample_inputs

SPLITS = 3
"""Blocks per axis of a sample."""

SOURCES: dict[str, dict[str, Any]] = {
    "own": {},
    "own, partly frozen": {"fixed_ratio": 0.3},
    "pooled": {"pool_size": 11},
    "pooled, partly frozen": {"pool_size": 11, "fixed_ratio": 0.5},
}
"""Where the numbers of a sample come from."""


def sample_update(block: Structure, source: str = "own", **changes: Any) -> StructuredDelta:
    """A 3×3 grid of blocks like this one, padded both ways, with numbers from one of `SOURCES`.

    Args:
        block: at least 2×2 for padding.
        source: a key of `SOURCES`.
        changes: other arguments of `StructuredDelta`.
    """
    padding = SPLITS - 1  # no more, or fewer rows would make smaller blocks
    options: dict[str, Any] = block.options | {"num_splits": SPLITS, "seed": 5, "device": DEVICE} | SOURCES[source]
    if "pool_size" in options:
        options["pool_size"] = min(options["pool_size"], SPLITS**2 * block.numel)
    out_features, in_features = (max(SPLITS * n - padding, SPLITS) for n in (block.rows, block.cols))
    return StructuredDelta(out_features, in_features, structure=block.name, **options | changes)


def moved(update: StructuredDelta, size: float = 0.3, seed: int = 9) -> StructuredDelta:
    """The same module after its trained numbers have moved by about `size`."""
    with torch.no_grad():
        update.pool.copy_(size * sample_inputs(update.num_trainable, seed=seed))
    return update


def by_every_algorithm(update: StructuredDelta) -> Iterator[StructuredDelta]:
    """A copy with the same numbers for each algorithm that its blocks have."""
    for name in (*algorithms(update.structure), "auto"):
        other = copy.deepcopy(update)
        other.algorithm = name
        yield other


def dense_by_oracle(update: StructuredDelta) -> Tensor:
    """ΔW in fp64 from the family's oracle, the generators now and, where that is subtracted, those at the start."""
    now = _assembled(update)
    if not update.centred:
        return now
    start = copy.deepcopy(update)
    start.reset_parameters()
    return now - _assembled(start)


def _assembled(update: StructuredDelta) -> Tensor:
    with torch.no_grad():
        blocks = oracle_dense(update.structure, **update.generators())
    rows = [torch.cat(list(row), dim=-1) for row in blocks]
    return update.scale * torch.cat(rows)[: update.grid.out_features, : update.grid.in_features]
