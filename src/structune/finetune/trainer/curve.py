"""The training curve as a picture: training loss, and the task's headline score, against the step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structune.files import write_bytes
from structune.palette import BLUE, GREY, GRID, INK, VERMILION
from structune.tasks.task import Metric


def draw_curve(
    history: Sequence[dict[str, Any]], metric: Metric, title: str, path: Path, chosen: int | None = None
) -> None:
    """Draw a trainer's log history, with the evaluations' values of a metric, to a PNG file (1500 x 810 pixels).

    The value after the step `chosen` is named, by default the last.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    key = f"eval_{metric.key}"
    scores = [(entry["step"], entry[key]) for entry in history if key in entry]
    figure = Figure(figsize=(7.5, 4.05), dpi=200, layout="constrained")
    left = figure.add_subplot()
    left.plot(*zip(*losses, strict=True), color=BLUE, linewidth=1.6, marker="o" if len(losses) == 1 else None)
    left.set_xlabel("step")
    left.set_ylabel("training loss", color=BLUE)
    left.set_ylim(bottom=0)
    left.set_xlim(0, max(entry["step"] for entry in history))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = left.twinx()
    right.plot(*zip(*scores, strict=True), color=VERMILION, linewidth=1.6, marker="o", markersize=6, clip_on=False)
    for step, score in [pair for pair in scores if pair[0] == chosen] or scores[-1:]:
        if chosen is not None:
            right.axvline(chosen, color=GREY, linewidth=1.0, linestyle=":")
        right.annotate(
            f"{metric.text(score)}{'' if chosen is None else ' kept'}", (step, score), xytext=(-8, 8),
            textcoords="offset points", color=VERMILION, ha="right", fontweight="bold",
        )  # fmt: skip
    right.set_ylabel(f"evaluation {metric.title}", color=VERMILION)
    right.set_ylim(*metric.shown_range([score for _, score in scores]))
    if metric.percent:
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
        axes.tick_params(colors=GREY, labelcolor=INK)
    left.grid(axis="y", color=GRID, linewidth=0.8)
    left.set_axisbelow(True)
    left.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes(path, picture.getvalue())
