"""What `auto` takes against what was fastest, by the medians of `structune bench`: on a GPU, and in bf16 on a CPU."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from structune import products, structures
from structune.bench.method import Methods
from structune.products.devices import cpu
from structune.structures import Structure

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
LONGER = 1.25
"""Than the fastest algorithm, at most, on a GPU."""
LONGER_IN_BF16 = 1.3
"""The same on a CPU."""


def measured(name: str) -> dict[tuple[int, int, str, str], dict[str, float]]:
    """Milliseconds by algorithm, for each width, number of tokens, dtype and method."""
    found: dict[tuple[int, int, str, str], dict[str, float]] = {}
    for case in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["cases"]:
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


GPU, CPU_IN_BF16 = measured("calibrate-cuda-cuda-nvidia-h200"), measured("calibrate-bf16-cpu-amd-epyc-1-threads")


def chosen(key: tuple[int, int, str, str], device: str) -> str:
    width, tokens, dtype, method = key
    structure, splits = block(method, width)
    return products.choose(structure, (splits, splits), tokens, getattr(torch, dtype), device, weight=True)


@pytest.mark.parametrize(("key", "times"), GPU.items(), ids=lambda one: "-".join(map(str, one)))
def test_hardly_longer_than_the_fastest(key: tuple[int, int, str, str], times: dict[str, float]) -> None:
    assert times[chosen(key, "cuda")] < LONGER * min(times.values()), times


def test_hardly_longer_than_the_fastest_in_bf16_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "HALF_IS_FAST", True)
    longer = {key: times[chosen(key, "cpu")] / min(times.values()) for key, times in CPU_IN_BF16.items()}
    assert len(longer) == 13 * 4
    assert max(longer.values()) < LONGER_IN_BF16, longer
    assert statistics.geometric_mean(longer.values()) < 1.03
    for name in ("dense", "fft"):  # whatever the one algorithm taken always, it would take long somewhere
        assert max(times[name] / min(times.values()) for times in CPU_IN_BF16.values()) > 2


def test_there_is_something_to_choose() -> None:
    """Whatever the one algorithm taken always, somewhere it takes half as long again as the fastest."""
    cases = GPU.values()
    assert len(cases) == 12 * 11
    for name in ("dense", "fft", "fold", "factored"):
        able = [times for times in cases if name in times]
        assert max(times[name] / min(times.values()) for times in able) > 1.5
