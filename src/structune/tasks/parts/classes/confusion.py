"""Classification scores from predicted and true classes, all from one confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def confusion(predicted: NDArray[Any], true: NDArray[Any], classes: int) -> Counts:
    """Counts C (classes, classes): C[t, p] examples of class t were predicted as p."""
    return np.bincount(true.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def scores(counts: Counts) -> dict[str, float]:
    """`accuracy`, `f1` (macro: the mean over classes) and `matthews` (Gorodkin's correlation for K classes).

    matthews = (c·s − Σ_k p_k t_k) / sqrt((s² − Σ p_k²)(s² − Σ t_k²)), with s examples, c right, p_k predicted as k and
    t_k of class k; 0 where the denominator is.
    """
    total, right = float(counts.sum()), float(np.trace(counts))
    true, predicted = counts.sum(1).astype(float), counts.sum(0).astype(float)
    spread = float(np.sqrt((total**2 - (predicted**2).sum()) * (total**2 - (true**2).sum())))
    return {
        "accuracy": right / total,
        "f1": float(np.mean([row["f1"] for row in per_class(counts)])),
        "matthews": (right * total - float(predicted @ true)) / spread if spread else 0.0,
    }


def among_first(logits: NDArray[Any], true: NDArray[Any], count: int) -> float:
    """The share of examples whose class is among the `count` with the largest logits; of equal ones the first."""
    first = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    return float(np.mean((first == true[:, None]).any(-1)))


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over the last axis, in double precision."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def per_class(counts: Counts) -> list[dict[str, float]]:
    """For each class `precision`, `recall`, `f1` (0 where undefined) and `examples`."""
    rows = []
    for k in range(len(counts)):
        hits, true, predicted = float(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
        rows.append(
            {
                "precision": hits / predicted if predicted else 0.0,
                "recall": hits / true if true else 0.0,
                "f1": 2 * hits / (true + predicted) if true + predicted else 0.0,
                "examples": true,
            }
        )
    return rows
