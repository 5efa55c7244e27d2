"""Mean ranks on a line, with bars over methods that are not told apart.

Source: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), figure 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from structune.palette import BLUE, INK
from structune.study.report.figures.drawn import Drawn, drawn, plain_text
from structune.study.report.ranks import Ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_critical_difference(found: Ranks, name: str, words: str) -> Drawn:
    """The best rank is on the left; half of the labels stand on either side."""
    from matplotlib.figure import Figure

    count = len(found.labels)
    half = math.ceil(count / 2)
    bars = _levels(found.groups)
    deepest = 0.45 + 0.28 * (max(bars, default=0) + 1)
    rows = deepest + 0.5 * half
    with plain_text():
        figure = Figure(figsize=(8.6, 0.5 * (rows + 1.8)))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(1 - 0.6 * count, count + 0.6 * count), ylim=(-rows - 0.1, 1.7))
        axes.plot([1, count], [0, 0], color=INK, linewidth=1.2)
        for tick in range(1, count + 1):
            axes.plot([tick, tick], [0, 0.12], color=INK, linewidth=1)
            axes.text(tick, 0.2, str(tick), ha="center", va="bottom", color=INK, fontsize=8)
        _scale(axes, found.difference)
        for (first, last), level in zip(found.groups, bars, strict=True):
            depth = -0.3 - 0.28 * level
            axes.plot([found.ranks[first] - 0.04, found.ranks[last] + 0.04], [depth, depth], color=BLUE, linewidth=3.5)
        for place, (label, rank) in enumerate(zip(found.labels, found.ranks, strict=True)):
            left = place < half
            y = -deepest - 0.5 * (place if left else count - 1 - place)
            end = 1 - 0.04 * count if left else 1.04 * count
            axes.plot([rank, rank, end], [0, y, y], color=INK, linewidth=0.8)
            text = f"{label}  {rank:.2f}" if left else f"{rank:.2f}  {label}"
            axes.text(end, y, f" {text} ", ha="right" if left else "left", va="center", color=INK)
        return drawn(figure, name, words, whole=True)


def _scale(axes: Axes, difference: float) -> None:
    """How long the critical difference is, above the line."""
    axes.plot([1, 1 + difference], [0.95, 0.95], color=BLUE, linewidth=1.6)
    for end in (1, 1 + difference):
        axes.plot([end, end], [0.85, 1.05], color=BLUE, linewidth=1.6)
    axes.text(1 + difference / 2, 1.1, f"critical difference {difference:.2f}", ha="center", va="bottom", color=INK)


def _levels(groups: list[tuple[int, int]]) -> list[int]:
    """On which of parallel lines each bar is drawn, so that none lies over another."""
    ends: list[int] = []
    levels = []
    for first, last in groups:
        level = next((number for number, end in enumerate(ends) if end < first), len(ends))
        ends[level : level + 1] = [last]
        levels.append(level)
    return levels
