"""How right sets of labels are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Present = NDArray[np.bool_]
"""(examples, labels): whether each label is there."""


def present(logits: NDArray[Any], threshold: float) -> Present:
    """Whether each label has at least the probability `threshold`: σ(logit) = 1 / (1 + e^−logit)."""
    return np.asarray(logits.astype(np.float64) >= np.log(threshold / (1 - threshold)))


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """σ(logit) in double precision, without an overflow."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def scores(answered: Present, true: Present) -> dict[str, float]:
    """`f1_micro` over all decisions, `f1_macro` (the mean over labels), `subset_accuracy` (all labels right).

    F1 = 2 · both / (answered + true), and 0 where neither occurs.
    """
    both, one, other = int((answered & true).sum()), int(answered.sum()), int(true.sum())
    return {
        "f1_micro": 2 * both / (one + other) if one + other else 0.0,
        "f1_macro": float(np.mean([row["f1"] for row in per_label(answered, true)])),
        "subset_accuracy": float((answered == true).all(-1).mean()),
    }


def per_label(answered: Present, true: Present) -> list[dict[str, float]]:
    """For each label `precision`, `recall`, `f1` (0 where undefined), and `examples` that have it."""
    rows = []
    for both, one, other in zip((answered & true).sum(0), answered.sum(0), true.sum(0), strict=True):
        rows.append(
            {
                "precision": float(both / one) if one else 0.0,
                "recall": float(both / other) if other else 0.0,
                "f1": float(2 * both / (one + other)) if one + other else 0.0,
                "examples": int(other),
            }
        )
    return rows


def best_constant(labels: Sequence[Sequence[str]]) -> tuple[list[str], float]:
    """The labels that are best answered always, and their `f1_micro`: the commonest m, for the best m."""
    counts = Counter(label for row in labels for label in row)
    order = sorted(counts, key=lambda label: (-counts[label], label))
    total, found, best = counts.total(), 0, (order[:1], 0.0)
    for size, label in enumerate(order, start=1):
        found += counts[label]
        value = 2 * found / (size * len(labels) + total)
        if value > best[1]:
            best = (order[:size], value)
    return best
