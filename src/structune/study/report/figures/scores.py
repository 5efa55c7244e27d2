"""Test score against trained numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from structune.figure_style import tidy
from structune.palette import GREY
from structune.study.report.figures.axes import at_least_high, log_axis
from structune.study.report.figures.drawn import Drawn, drawn, plain_text
from structune.study.report.line_looks import Line
from structune.study.report.score_text import factor, number, titled
from structune.tasks.task import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SHARE = 0.04
"""Of all that a bounded score can be, what its axis shows at the least: some standard errors of a thousand answers."""


def draw_scores(
    rows: Sequence[dict[str, Any]],
    metric: Metric,
    looks: Mapping[str, Line],
    reference: str | None,
    name: str,
    words: str,
) -> Drawn:
    """A task's figure, with its legend below.

    Args:
        rows: its summaries.
        metric: what it is scored by.
        looks: the line of each label.
        reference: the label of what is to be beaten.
        name: of the file.
        words: what it shows.
    """
    from matplotlib.figure import Figure

    with plain_text():
        figure = Figure(figsize=(7.4, 4.8), layout="constrained")
        axes = figure.subplots()
        score_panel(axes, rows, metric, looks, reference)
        handles, labels = axes.get_legend_handles_labels()
        across = max(1, min(4, 110 // max(map(len, labels), default=1)))
        figure.legend(
            handles, labels, loc="outside lower left", ncols=across, fontsize=8, frameon=False, handlelength=3
        )
        return drawn(figure, name, words)


def score_panel(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    metric: Metric,
    looks: Mapping[str, Line],
    reference: str | None = None,
) -> None:
    """Draw a task's scores, a line for methods that differ in their size alone; its legend is the caller's.

    Bars are standard deviations over seeds. What trains no number in the adapter, such as a head alone, is a level
    line; so is the score of the reference.
    """
    times = factor(metric)
    lines: dict[Line, list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(looks[row["method"]], []).append(row)
    for line, points in lines.items():
        for row in (row for row in points if not row["numbers"]):
            level = times * statistics.mean(row["test"])
            axes.axhline(level, color=line.colour, linestyle=":", linewidth=1.2, label=f"{row['method']}, no adapter")
        points = sorted((row for row in points if row["numbers"]), key=lambda row: row["numbers"])
        means = [times * statistics.mean(point["test"]) for point in points]
        bars = [times * statistics.stdev(p["test"]) if len(p["test"]) > 1 else 0.0 for p in points]
        if points:
            axes.errorbar(
                [point["numbers"] for point in points], means, bars if any(bars) else None, color=line.colour,
                marker=line.marker, markerfacecolor=line.face, linestyle=line.dash, linewidth=1.3, elinewidth=1,
                capsize=2, label=line.name,
            )  # fmt: skip
    for row in (row for row in rows if row["method"] == reference):
        mean = statistics.mean(row["test"])
        said = f"to beat: {reference}, {number(mean, metric)}"
        axes.axhline(times * mean, color=GREY, linestyle=(0, (6, 3)), linewidth=1.2, zorder=0, label=said)
    if numbers := [row["numbers"] for row in rows if row["numbers"]]:
        log_axis(axes, numbers)
    lowest, highest = metric.range
    if lowest is not None and highest is not None:
        at_least_high(axes, LEAST_SHARE * times * (highest - lowest))
    better = "" if metric.greater_is_better else ", less is better"
    axes.set(xlabel="trained numbers in the adapter", ylabel=f"{titled(metric)}{better}")
    tidy(axes)
