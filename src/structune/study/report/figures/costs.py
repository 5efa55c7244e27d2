"""What a training step takes: time and memory of each method on one device."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from structune.figure_style import tidy
from structune.study.report.figures.axes import task_looks
from structune.study.report.figures.drawn import Drawn, drawn, plain_text
from structune.study.report.machines import Cost


def draw_costs(costs: Sequence[Cost], tasks: Sequence[str], name: str, words: str) -> Drawn:
    """Seconds a step and peak memory, a line a method, a marker a task; the fastest method is on top.

    Args:
        costs: those of one device.
        tasks: all of the study.
        name: of the file.
        words: what it shows.
    """
    from matplotlib.figure import Figure

    seconds: dict[str, list[float]] = {}
    for cost in costs:
        seconds.setdefault(cost.label, []).append(cost.seconds)
    order = sorted(seconds, key=lambda label: -statistics.fmean(seconds[label]))
    looks = task_looks(tasks)
    with plain_text():
        figure = Figure(figsize=(8.6, 1.3 + 0.21 * len(order)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, title in ((left, "seconds a step"), (right, f"peak memory, MiB ({costs[0].memory_kind})")):
            for task in tasks:
                own = [cost for cost in costs if cost.task == task]
                values = [cost.seconds if axes is left else cost.memory / 2**20 for cost in own]
                colour, marker = looks[task]
                axes.plot(values, [order.index(cost.label) for cost in own], marker, color=colour, markersize=5)
            axes.set_xlim(left=0)
            axes.set_xlabel(title)
            tidy(axes)
            axes.tick_params(axis="y", length=0)
        left.set_yticks(range(len(order)), order, fontsize=8)
        left.set_ylim(-0.6, len(order) - 0.4)
        return drawn(figure, name, words)
