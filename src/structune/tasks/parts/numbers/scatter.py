"""What was answered against what was true, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structune.palette import BLUE, GREY, GRID
from structune.tasks.parts.figure import new_figure, save, titled

_OPAQUE = 200  # points that hide nothing


def draw_scatter(predicted: NDArray[Any], true: NDArray[Any], title: str, path: Path) -> Path:
    """Draw a point for each example (examples,), and the line on which all would be right."""
    figure, axes = new_figure(5.2, 5.0)
    low, high = float(min(predicted.min(), true.min())), float(max(predicted.max(), true.max()))
    margin = 0.04 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.scatter(
        true, predicted, s=14, color=BLUE, linewidths=0, alpha=float(np.clip(_OPAQUE / len(true), 0.15, 0.8)),
        rasterized=True,
    )  # fmt: skip
    axes.set(xlim=ends, ylim=ends, xlabel="true", ylabel="answered", aspect="equal")
    axes.grid(color=GRID, linewidth=0.8)
    titled(axes, title)
    return save(figure, path)
