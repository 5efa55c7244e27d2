"""Results as a picture."""

from __future__ import annotations

from pathlib import Path

from structune.bench.growth import is_growth
from structune.bench.growth_figure import draw_growth
from structune.bench.memory_figure import draw_memory
from structune.bench.ratio_figure import draw_ratios
from structune.bench.results import Results


def draw(results: Results, path: Path) -> None:
    """Draw the figure that suits a suite, to a PNG. Raises `UserError` when it cannot be written there."""
    if is_growth(results):
        draw_growth(results, path)
    elif "time" in results.suite["measure"]:
        draw_ratios(results, path)
    else:
        draw_memory(results, path)
