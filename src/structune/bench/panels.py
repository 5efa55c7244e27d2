"""Figures with a line a method and a panel a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from structune.bench.lines import Line, lines
from structune.bench.results import CaseResult, Results
from structune.figure_style import save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
"""Panels side by side."""

Panel = dict[str, Line]
"""The lines of a case that have something to show, by method."""


def draw_panels(
    results: Results,
    path: Path,
    value: Callable[[Line], float | None],
    draw_one: Callable[[Axes, Panel, Sequence[str], CaseResult], None],
    label: str,
) -> None:
    """Draw every case that has something to show into a panel; methods with a small value come first.

    Args:
        results: of a suite.
        path: of the PNG.
        value: by which methods are ordered (its mean over the cases); None: nothing to show.
        draw_one: fills the axes of a panel: method n of the names goes to the height n.
        label: of the horizontal axis.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    panels: list[tuple[Panel, CaseResult]] = []
    values: dict[str, list[float]] = {}
    for case in results.cases:
        panel = {}
        for line in lines(results, case):
            if (found := value(line)) is not None:
                panel[line.row.method] = line
                values.setdefault(line.row.method, []).append(found)
        if panel:
            panels.append((panel, case))
    panels = panels or [({}, case) for case in results.cases]
    names = sorted(values, key=lambda name: sum(values[name]) / len(values[name]))
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    size = (2.6 + 2.7 * columns, 0.8 + rows * (0.8 + 0.22 * len(names)))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    places = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    places[0].set_yticks(range(len(names)), names)
    places[0].set_ylim(len(names) - 0.4, -0.7)
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, (panel, case) in zip(places, panels, strict=False):
        draw_one(axes, panel, names, case)
        axes.set_title(case.name, loc="left", fontsize=9.5)
        tidy(axes)
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.tick_params(axis="x", labelsize=8)
    figure.supxlabel(label, fontsize=9)
    figure.suptitle(results.suite["title"], x=0.01, ha="left", fontsize=12, fontweight="bold")
    save(figure, path)
