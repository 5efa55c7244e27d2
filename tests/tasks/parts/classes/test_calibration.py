"""Calibration against a plain loop, and where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from structune.tasks.parts.classes.calibration import BINS, calibration_error, reliability


def test_the_bins_and_the_error_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.3, 1, 500), [1.0, 0.0, 1 / BINS, 2 / BINS]])
    right = rng.random(len(confidence)) < confidence**2
    expected, filled = 0.0, 0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [(c, r) for c, r in zip(confidence, right, strict=True) if low < c <= high or (number == 0 and c == 0)]
        if inside:
            filled += 1
            gap = sum(r for _, r in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            expected += len(inside) / len(confidence) * abs(gap)
    rows = reliability(confidence, right)
    assert len(rows) == filled
    assert sum(row["examples"] for row in rows) == len(confidence)
    assert calibration_error(rows) == pytest.approx(expected)
    assert expected > 0.05


def test_answers_that_mean_what_they_say_have_no_error() -> None:
    confidence, right = np.full(10, 0.7), np.arange(10) < 7
    assert calibration_error(reliability(confidence, right)) == pytest.approx(0, abs=1e-12)
    assert calibration_error(reliability(np.full(10, 1.0), np.arange(10) < 7)) == pytest.approx(0.3)
