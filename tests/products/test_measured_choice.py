"""What `auto` takes on a GPU against what was fastest there, by the medians of `structune bench calibrate-cuda`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from structune import products, structures
from structune.bench.method import Methods
from structune.structures import Structure

FILE = Path(__file__).parents[2] / "benchmarks" / "results" / "calibrate-cuda-cuda-nvidia-h200.json"
LONGER = 1.25
"""Than the fastest algorithm, at most."""


def measured() -> dict[tuple[int, int, str, str], dict[str, float]]:
    """Milliseconds by algorithm, for each width, number of tokens, dtype and method."""
    found: dict[tuple[int, int, str, str], dict[str, float]] = {}
    for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]:
        size, tokens, _ = case["name"].split(", ")
        for row in case["rows"]:
            method, _, algorithm = row["method"].partition("@")
            if algorithm and algorithm != "auto":
                key = int(size.partition("x")[0]), int(tokens.split()[0]), case["dtype"], method
                found.setdefault(key, {})[algorithm] = statistics.median(row["ms"])
    return found


def block(method: str, width: int) -> tuple[Structure, int]:
    """The block of a benchmark's method on a layer width × width, and how many there are in a row."""
    options: dict[str, Any] = dict(Methods()[method].definition.options)
    family = structures.get(options.pop("structure", "circulant"))
    divided = options.pop("num_splits", None) or {"d": 1, "d/6 or d/8": 8}[options.pop("block_size")]
    return family(width // divided, width // divided, **options), divided


@pytest.mark.parametrize("key", measured(), ids=lambda key: "-".join(map(str, key)))
def test_hardly_longer_than_the_fastest(key: tuple[int, int, str, str]) -> None:
    width, tokens, dtype, method = key
    times = measured()[key]
    structure, splits = block(method, width)
    chosen = products.choose(structure, (splits, splits), tokens, getattr(torch, dtype), "cuda", weight=True)
    assert times[chosen] < LONGER * min(times.values()), (chosen, times)


def test_there_is_something_to_choose() -> None:
    """Whatever the one algorithm taken always, somewhere it takes half as long again as the fastest."""
    cases = measured().values()
    assert len(cases) == 12 * 11
    for name in ("dense", "fft", "fold", "factored"):
        able = [times for times in cases if name in times]
        assert max(times[name] / min(times.values()) for times in able) > 1.5
