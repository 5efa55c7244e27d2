"""How near numbers are to what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scores(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """`pearson`, `spearman` and `rmse` of numbers (examples,); a correlation is 0 where one side does not vary.

    spearman is pearson of the ranks, equal numbers sharing the mean of theirs; rmse = √(mean (predicted − true)²).
    """
    from scipy.stats import rankdata

    predicted, true = predicted.astype(np.float64), true.astype(np.float64)
    return {
        "pearson": _correlation(predicted, true),
        "spearman": _correlation(rankdata(predicted), rankdata(true)),
        "rmse": float(np.sqrt(np.mean((predicted - true) ** 2))),
    }


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Σ a b / √(Σ a² · Σ b²) with a and b the differences from the means; in [-1, 1]."""
    a, b = one - one.mean(), other - other.mean()
    a, b = (part / (np.abs(part).max() or 1.0) for part in (a, b))  # or the squares of tiny numbers would be 0
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1, 1)) if size and np.ptp(one) and np.ptp(other) else 0.0
