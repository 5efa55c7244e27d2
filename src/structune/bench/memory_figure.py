"""Memory beyond the frozen layer: what is saved, and the peak, a panel a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from structune.bench.panels import Panel, draw_panels
from structune.bench.results import CaseResult, Results
from structune.figure_style import method_style
from structune.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_memory(results: Results, path: Path) -> None:
    """Draw the bytes saved for backward and the transient peak of each method.

    Those of x and W stand beside them where they are of the one layer that is measured.
    """
    label = "MB beyond what is frozen: saved for backward (hollow), transient peak (full)"
    of_a_layer = results.suite["workload"] == "layer"
    if of_a_layer:
        label += "; x: input, W: weight"

    def draw_one(axes: Axes, panel: Panel, names: Sequence[str], case: CaseResult) -> None:
        _pairs(axes, panel, names)
        if of_a_layer:
            _sizes(axes, case)

    draw_panels(results, path, lambda line: line.peak, draw_one, label)


def _pairs(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

    for place, name in enumerate(names):
        line = panel.get(name)
        if line is None or line.peak is None:
            continue
        colour, marker = method_style(line.row.kind)
        peak, saved = line.peak / 1e6, None if line.saved is None else line.saved / 1e6
        if saved is not None:
            axes.plot([saved, peak], [place, place], color=colour, linewidth=0.9, alpha=0.6, zorder=2)
            axes.plot(saved, place, marker=marker, color="white", markeredgecolor=colour, markersize=6, zorder=3)
        axes.plot(peak, place, marker=marker, color=colour, markersize=6, markeredgewidth=0.6, zorder=4,
                  markeredgecolor="white")  # fmt: skip
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.15)
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _sizes(axes: Axes, case: CaseResult) -> None:
    for size, label, side in ((case.input_bytes, "x", 1), (case.weight_bytes, "W", -1)):
        axes.axvline(size / 1e6, color=GREY, linewidth=1, linestyle="--")
        axes.annotate(label, (size / 1e6, 1), (3 * side, 0), xycoords=("data", "axes fraction"), color=INK, fontsize=8,
                      textcoords="offset points", va="top", ha="left" if side > 0 else "right")  # fmt: skip
