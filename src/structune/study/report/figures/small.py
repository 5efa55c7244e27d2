"""Small panels, one a method, whose lines are tasks: rates that were tried, losses while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from structune.figure_style import tidy
from structune.palette import GREY, INK
from structune.study.report.cells import Cell
from structune.study.report.figures.axes import log_axis, task_looks
from structune.study.report.figures.drawn import Drawn, drawn, plain_text
from structune.study.report.score_text import factor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (3.3, 2.3)
_PLACE = {"left": 0.15, "right": 0.94, "bottom": 0.19, "top": 0.88}

Limits = tuple[float, float]


def limits(values: Sequence[float]) -> Limits:
    """Where an axis begins and ends that shows all of them."""
    margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    return min(values) - margin, max(values) + margin


def draw_rates(cells: Sequence[Cell], tasks: Sequence[str], height: Limits, name: str, words: str) -> Drawn:
    """Validation scores of one method by rate, a line a task; the rate that was chosen has a large marker.

    Args:
        cells: of the method, those that were tried.
        tasks: all of the study.
        height: of the axis of scores.
        name: of the file.
        words: what it shows.
    """
    with plain_text():
        figure, axes = _panel(cells[0].label, "learning rate")
        looks = task_looks(tasks)
        for cell in cells:
            colour, marker = looks[cell.task]
            times = factor(cell.metric)
            fine = [(one.point, times * one.score) for one in cell.tries if one.score is not None]
            rates, scores = [point.rate for point, _ in fine], [score for _, score in fine]
            line = "" if cell.drawn else "-"  # more than the rate may differ between what was drawn
            axes.plot(rates, scores, line, color=colour, marker=marker, markersize=3.5, linewidth=1.2)
            away = [one.point.rate for one in cell.tries if one.score is None]
            at_the_foot: Any = axes.get_xaxis_transform()
            axes.plot(away, [0.04] * len(away), "x", color=colour, markersize=6, transform=at_the_foot)
            for point, score in fine:
                if point == cell.point:
                    axes.plot(
                        [point.rate], [score], marker=marker, color=colour, markersize=8, markeredgecolor=INK,
                        markeredgewidth=0.8,
                    )  # fmt: skip
        log_axis(axes, [one.point.rate for cell in cells for one in cell.tries], "{:.3g}")
        axes.set_ylim(height)
        return drawn(figure, name, words)


def draw_curves(
    cells: Sequence[Cell], beaten: Mapping[str, Cell], tasks: Sequence[str], height: Limits, name: str, words: str
) -> Drawn:
    """Losses of one method at the rates that were chosen: in training a line a seed, in grey the reference's.

    Rings are losses on the validation part, where a run was scored more than once.

    Args:
        cells: of the method, those with losses.
        beaten: the reference's, by task.
        tasks: all of the study.
        height: of the axis of losses.
        name: of the file.
        words: what it shows.
    """
    with plain_text():
        figure, axes = _panel(cells[0].label, "step")
        looks = task_looks(tasks)
        for cell in cells:
            against = beaten.get(cell.task)
            for curve in [] if against is None or against.label == cell.label else curves(against):
                axes.plot(*zip(*curve, strict=True), color=GREY, linewidth=0.7, alpha=0.6)
        for cell in cells:
            for curve in curves(cell):
                axes.plot(*zip(*curve, strict=True), color=looks[cell.task][0], linewidth=1.1)
            for curve in validation_curves(cell):
                colour = looks[cell.task][0]
                axes.plot(*zip(*curve, strict=True), "o:", color=colour, markersize=4, mfc="none", linewidth=0.8)
        axes.set_ylim(height)
        axes.set_xlim(left=0)
        return drawn(figure, name, words)


def curves(cell: Cell) -> list[list[tuple[int, float]]]:
    """Step and training loss of the runs that were chosen, where they have a record of it."""
    return [run["curve"] for run in cell.scored if run.get("curve")]


def validation_curves(cell: Cell) -> list[list[tuple[int, float]]]:
    """Step and validation loss of the runs that were chosen, where they were scored more than once."""
    known = [run["validation_curve"] for run in cell.scored if len(run.get("validation_curve", {}).get("step", [])) > 1]
    return [list(zip(curve["step"], curve["loss"], strict=True)) for curve in known]


def _panel(title: str, across: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE)
    figure.subplots_adjust(**_PLACE)
    axes = figure.subplots()
    tidy(axes)
    axes.tick_params(labelsize=7.5)
    axes.set_title(title if len(title) < 42 else f"{title[:40]}…", loc="left", fontsize=9, color=INK)
    axes.set_xlabel(across, fontsize=8)
    return figure, axes
