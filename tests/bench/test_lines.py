"""Figures of merit from known numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from structune.bench.csv_file import to_csv
from structune.bench.growth import exponent, theory
from structune.bench.lines import Line, Spread, lines
from structune.bench.results import Results

Invent = Callable[..., Results]


@pytest.mark.parametrize("values", [[3.0], [2.0, 1.0], [5.0, 1.0, 4.0, 2.0, 3.0], list(np.geomspace(1, 99, 31))])
def test_spread_is_that_of_numpy(values: Sequence[float]) -> None:
    spread = Spread.of(values)
    assert spread.median == pytest.approx(np.median(values))
    assert (spread.p20, spread.p80) == pytest.approx((np.quantile(values, 0.2), np.quantile(values, 0.8)))


def test_spread_by_hand() -> None:
    assert Spread.of([6.0, 1.0, 3.0, 2.0, 5.0, 4.0]) == Spread(3.5, 2.0, 5.0)


def of(results: Results) -> dict[str, Line]:
    return {line.row.method: line for line in lines(results, results.cases[0])}


def test_ratios_are_taken_within_a_round(invent: Invent) -> None:
    """A machine that slows down changes every time, and no ratio."""
    drift = [1.0, 2.0, 8.0]
    found = of(invent({"frozen": drift, "lora-r8": [1.4 * d for d in drift], "toeplitz-k4": [3.0, 3.0, 9.0]}))
    assert found["lora-r8"].ratio == Spread(*(pytest.approx(1.4),) * 3)
    assert found["frozen"].ratio == Spread(1, 1, 1)
    ratios = [3.0, 1.5, 1.125]
    assert found["toeplitz-k4"].ratio == Spread.of(ratios)
    assert found["toeplitz-k4"].ms == Spread.of([3.0, 3.0, 9.0])
    assert found["toeplitz-k4"].extra_ms == 1.0  # of 2, 1, 1


def verdicts(invent: Invent, ms: float, saved: int = 0, peak: int = 0) -> list[tuple[str, str, bool]]:
    results = invent({"frozen": [1.0], "lora-r8": [1.4], "toeplitz-k4": [ms]}, saved=saved, peak=peak)
    frozen = results.cases[0].rows[0].model_copy(update={"saved": 0, "peak": 0})
    case = results.cases[0].model_copy(update={"rows": [frozen, *results.cases[0].rows[1:]]})
    line = lines(results, case)[-1]
    return [(quantity, verdict.bound, verdict.met) for quantity, found in line.verdicts.items() for verdict in found]


def test_targets(invent: Invent) -> None:
    assert verdicts(invent, 1.3, 1000, 500) == [
        ("time", "1.50", True), ("time", "lora-r8", True), ("saved", "x", True), ("peak", "W", True),
    ]  # fmt: skip
    assert verdicts(invent, 1.45, 1011, 501) == [
        ("time", "1.50", True), ("time", "lora-r8", False), ("saved", "x", False), ("peak", "W", False),
    ]  # fmt: skip
    assert [met for _, _, met in verdicts(invent, 1.504)[:2]] == [True, False]  # as shown: 1.50
    assert [met for _, _, met in verdicts(invent, 1.506)[:2]] == [False, False]


def test_targets_are_for_those_they_name(invent: Invent) -> None:
    found = of(invent({"frozen": [1.0], "lora-r8": [9.0], "toeplitz-k4": [9.0]}))
    assert not found["frozen"].verdicts
    assert not found["lora-r8"].verdicts
    assert len(found["toeplitz-k4"].verdicts["time"]) == 2


def test_csv_has_a_line_a_method_and_case(invent: Invent) -> None:
    results = invent({"frozen": [2.0, 4.0], "toeplitz-k4": [3.0, 5.0]}, saved=10, peak=20)
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert [(row["case"], row["method"]) for row in rows] == [
        (case, method) for case in ("16x8, 4 tokens", "8x8, 4 tokens") for method in ("frozen", "toeplitz-k4")
    ]
    row = rows[1]
    assert (row["ms_median"], row["ratio_median"], row["trainable"], row["saved_bytes"]) == ("4.0", "1.375", "7", "10")
    assert (row["peak_beyond_frozen_bytes"], row["device"]) == ("0", "Some CPU")
    assert (row["targets"], row["met"]) == ("time <= 1.50; saved <= x; peak <= W", "yes; yes; yes")


SIZES = [256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0, -0.5])
def test_exponents_of_power_laws(power: float) -> None:
    assert exponent(SIZES, [3 * size**power for size in SIZES]) == pytest.approx(power)


def test_only_the_upper_half_counts() -> None:
    flat_first = [max(size, 1024.0) for size in SIZES]
    assert exponent(SIZES, flat_first) == pytest.approx(1)
    assert exponent(SIZES, list(reversed(SIZES))) == pytest.approx(-1)
    assert exponent(SIZES, [1, 1, 1, 2048, -1, 8192]) is None
    assert exponent([1, 4, 16, 64], [1, 4, 16, 64]) is None  # two points are no fit


def test_theory_is_fitted_over_the_same_sizes() -> None:
    upper = np.log([2048, 4096, 8192])

    def slope(growth: Callable[[float], float]) -> float:
        return float(np.polyfit(upper, np.log([growth(n) for n in (2048, 4096, 8192)]), 1)[0])

    assert theory("full", SIZES) == pytest.approx(2)
    assert theory("lora", SIZES) == theory("structune-low-rank", SIZES) == pytest.approx(1)
    for kind in ("c3a", "structune-circulant", "hydra-toeplitz", "structune-hankel-like"):
        assert theory(kind, SIZES) == pytest.approx(slope(lambda n: n * math.log(n)))
    for kind in ("structune-vandermonde", "hydra-cauchy", "structune-cauchy-like"):
        assert theory(kind, SIZES) == pytest.approx(slope(lambda n: n * math.log(n) ** 2))
    assert theory("vera", SIZES) is None
