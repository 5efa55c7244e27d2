"""Times relative to the frozen layer: a dot with whiskers a method, a panel a case."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from structune.bench.panels import Panel, draw_panels
from structune.bench.results import CaseResult, Results
from structune.figure_style import method_style
from structune.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_ratios(results: Results, path: Path) -> None:
    """Draw the median ratio of each method with its 20th and 80th percentile, its targets, and two marked methods."""
    beside = results.suite["beside"]
    draw_panels(
        results,
        path,
        lambda line: None if line.ratio is None else line.ratio.median,
        functools.partial(_dots, beside),
        f"time, frozen = 1: median, p20 to p80 (logarithmic axis; dashed: {beside}; hollow diamonds: targets)",
    )


def _dots(beside: str, axes: Axes, panel: Panel, names: Sequence[str], case: CaseResult) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    highest = lowest = 1.0
    for place, name in enumerate(names):
        line = panel.get(name)
        if line is None or line.ratio is None:
            axes.annotate("not measured", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=7,
                          color=GREY)  # fmt: skip
            continue
        colour, marker = method_style(line.row.kind)
        ratio = line.ratio
        axes.plot([ratio.p20, ratio.p80], [place, place], color=colour, linewidth=1.6, zorder=3)
        axes.plot(ratio.median, place, marker=marker, color=colour, markersize=6.5, markeredgecolor="white",
                  markeredgewidth=0.6, zorder=4)  # fmt: skip
        bounds = [float(v.bound) for v in line.verdicts.get("time", []) if v.bound[0].isdigit()]
        axes.plot(bounds, [place] * len(bounds), "d", color="none", markeredgecolor=INK, markersize=5, zorder=5)
        highest = max(highest, 1.15 * ratio.median, *bounds)
        lowest = min(lowest, ratio.median, *bounds)
    axes.axvline(1, color=INK, linewidth=1)
    other = panel.get(beside)
    if other is not None and other.ratio is not None:
        axes.axvline(other.ratio.median, color=method_style(other.row.kind)[0], linewidth=1, linestyle="--")
    axes.set(xscale="log", xlim=(0.96 * lowest, 1.1 * highest))
    steps = (1, 1.1, 1.2, 1.5, 2) if highest < 2.5 else (1, 1.5, 2, 3, 5) if highest < 12 else (1, 3)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
