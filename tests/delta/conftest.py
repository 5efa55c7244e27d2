"""ΔWs to test with, and ΔW by plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.delta import StructuredDelta
from structune.testing import oracle_dense
from structune.testing.updates import SOURCES

OUT, IN = 10, 7
FAMILIES = structures.names()
STARTS = (True, False, "xavier_uniform", "kaiming_uniform")

every_family = pytest.mark.parametrize("family", FAMILIES)
every_source = pytest.mark.parametrize("source", SOURCES)
every_start = pytest.mark.parametrize("start", STARTS)


def make(family: str, source: str = "own", **changes: Any) -> StructuredDelta:
    """A ΔW of 10×7 in a 3×3 grid of 4×3 blocks, which pads both ways."""
    kwargs: dict[str, Any] = {"num_splits": 3, "seed": 5} | SOURCES[source]
    if "rank" in structures.get(family).own_options():
        kwargs["rank"] = 2
    return StructuredDelta(OUT, IN, structure=family, **kwargs | changes)


def bound_of(start: bool | str) -> float:
    """θ⁰ is uniform on (−bound, bound)."""
    if start is True:
        return 1.0
    if start == "lora":
        return math.sqrt(1 / 3)  # columns of a block
    return math.sqrt(1 / IN) if start == "kaiming_uniform" else math.sqrt(6 / (IN + OUT))


def by_hand(delta: StructuredDelta, start: bool | str, scale: float = 1.0) -> Tensor:
    """ΔW in fp64 by plain loops over blocks and entries, from `pool`, `index` and `start` alone."""
    frozen = delta.pool_size - delta.num_trainable
    begin = [0.0] * delta.pool_size
    if delta.start is not None:
        begin = [k * 2.0**-24 * bound_of(start) for k in delta.start.tolist()]
    step = delta.structure.raw_step
    now = [b + (step * delta.pool.tolist()[k - frozen] if k >= frozen else 0.0) for k, b in enumerate(begin)]

    def block(numbers: list[float], number: int) -> Tensor:
        drawn = []
        for k in range(delta.structure.numel):
            drawn.append(numbers[number * delta.structure.numel + k if delta.index is None else delta.index[number, k]])
        raw, first = {}, 0
        for name, shape in delta.structure.shapes.items():
            raw[name] = torch.tensor(drawn[first : first + math.prod(shape)], dtype=torch.float64).reshape(shape)
            first += math.prod(shape)
        return oracle_dense(delta.structure, **delta.structure.from_raw(**raw))

    dense = torch.zeros(OUT, IN, dtype=torch.float64)
    rows, cols = delta.structure.rows, delta.structure.cols
    for p in range(-(-OUT // rows)):
        for q in range(-(-IN // cols)):
            number = p * -(-IN // cols) + q
            W = block(now, number)
            if start in (True, "lora"):
                W = W - block(begin, number)
            for i in range(rows):
                for j in range(cols):
                    if p * rows + i < OUT and q * cols + j < IN:
                        dense[p * rows + i, q * cols + j] = scale * W[i, j]
    return dense
