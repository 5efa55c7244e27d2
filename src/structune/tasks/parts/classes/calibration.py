"""Whether probabilities mean what they say: of the answers given with probability p, a share p is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structune.palette import BLUE, GREY, GRID, INK, VERMILION
from structune.tasks.parts.figure import new_figure, plain, save, titled

BINS = 15


def reliability(confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> list[dict[str, float]]:
    """The answers by their probability, in bins of equal width (the upper end belongs to a bin); empty ones left out.

    Args:
        confidence: (examples,) probability of each answer, in [0, 1].
        right: (examples,) whether it was right.
        bins: how many.

    Returns:
        for each bin `above` and `up_to`, the mean `confidence`, the `accuracy`, and how many `examples`.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = []
    for number in range(bins):
        here = place == number
        if count := int(here.sum()):
            rows.append(
                {
                    "above": number / bins,
                    "up_to": (number + 1) / bins,
                    "confidence": float(confidence[here].mean(dtype=np.float64)),
                    "accuracy": float(right[here].mean(dtype=np.float64)),
                    "examples": count,
                }
            )
    return rows


def calibration_error(rows: list[dict[str, float]]) -> float:
    """The expected calibration error, Σ_b n_b / n · |accuracy_b − confidence_b| (Guo et al., ICML 2017, equation 3)."""
    total = sum(row["examples"] for row in rows)
    return sum(row["examples"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / total


def draw_reliability(rows: list[dict[str, float]], path: Path) -> Path:
    """Draw accuracy against probability, and below how many answers there are of each."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(5.2, 5.2)
    axes.remove()
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    left = [row["above"] for row in rows]
    widths = [row["up_to"] - row["above"] for row in rows]
    total = sum(row["examples"] for row in rows)
    axes.bar(
        left, [row["accuracy"] for row in rows], widths, align="edge", color=BLUE, edgecolor="white", label="right"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="probability = share of right answers")
    axes.plot(
        [row["confidence"] for row in rows], [row["accuracy"] for row in rows], "o", color=VERMILION, markersize=5,
        label="mean probability of each bin",
    )  # fmt: skip
    axes.set_ylabel("share of right answers", color=INK)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, loc="upper left", framealpha=0.9, edgecolor="white")
    titled(axes, f"expected calibration error {calibration_error(rows):.3f}, {total:,} answers")
    below.bar(left, [row["examples"] / total for row in rows], widths, align="edge", color=GREY, edgecolor="white")
    below.set_xlabel("probability of the answer")
    below.set_ylabel("answers")
    below.set_xlim(0, 1)
    for part in (axes, below):
        plain(part)
        part.yaxis.set_major_formatter(PercentFormatter(1.0))
        part.grid(axis="y", color=GRID, linewidth=0.8)
    below.xaxis.set_major_formatter(PercentFormatter(1.0))
    return save(figure, path)
