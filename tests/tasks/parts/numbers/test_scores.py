"""Correlations and errors against SciPy, and where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from structune.tasks.parts.numbers.scores import scores


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_against_scipy_with_ties(scale: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, 50).astype(float)
    predicted = np.round(true + rng.normal(size=50), 1)
    found = scores(scale * predicted, true)
    assert found["pearson"] == pytest.approx(stats.pearsonr(predicted, true).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(predicted, true).statistic)
    assert 0.5 < found["pearson"] < 0.95 and found["pearson"] != pytest.approx(found["spearman"], abs=1e-3)


def test_by_hand() -> None:
    found = scores(np.array([1.0, 2.0, 10.0]), np.array([1.0, 2.0, 3.0]))
    assert found["spearman"] == 1
    assert found["rmse"] == pytest.approx(np.sqrt(49 / 3))


@pytest.mark.parametrize(("one", "other"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [5.0, 5.0]), ([3.0], [2.0])])
def test_what_does_not_vary_has_no_correlation(one: list[float], other: list[float]) -> None:
    found = scores(np.array(one), np.array(other))
    assert (found["pearson"], found["spearman"]) == (0, 0)
    assert found["rmse"] > 0
