"""A study as a table and a figure: what methods reach with how many numbers."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.errors import UserError
from structune.files import write_text
from structune.palette import INK
from structune.study.engine import summaries
from structune.study.line_looks import Line, line_looks
from structune.study.results import Results
from structune.study.study_file import Study
from structune.study.style import save, tidy
from structune.tasks.task import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3
"""How many panels of a figure are beside each other."""


def table(plan: Study, results: Results) -> str:
    """The test scores as Markdown: a table for each task, sorted by the numbers that are trained."""
    rows = list(summaries(plan, results))
    text = []
    for task, metric in plan.scores().items():
        own = sorted((row for row in rows if row["task"] == task), key=lambda row: (row["numbers"], row["method"]))
        text += [f"**{task}**, {_titled(metric)} on the test part:", ""]
        text += [
            "| method | trained numbers | learning rate | validation | test | seeds |",
            "|---|---:|---:|---:|---:|---|",
        ]
        text += [
            f"| {row['method']} | {row['numbers']:,} | {row['rate']:.3g} | {_spread(row['validation'], metric)} | "
            f"{_spread(row['test'], metric)} | {', '.join(map(str, row['seeds']))} |"
            for row in own
        ]
        if before := {_spread([row["untrained"]], metric) for row in own if row["untrained"] is not None}:
            ends = dict.fromkeys((min(before, key=float), max(before, key=float)))  # some methods start at random
            text += ["", f"Before training: {' to '.join(ends)} on the validation part."]
        text += [""]
    return "\n".join(text)


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what a page has between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        UserError: the page has no such place, or cannot be read.
    """
    try:
        content = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--page {str(page)!r}: cannot be read ({error.strerror})") from None
    place = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    if not place.search(content):
        raise UserError(
            f"--page {str(page)!r}: has no lines <!-- {name} --> and <!-- end of {name} -->; put them there"
        )
    write_text(page, place.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", content))


def draw(plan: Study, results: Results, path: Path) -> None:
    """Test score against trained numbers, a panel for each task, a line for methods that differ in their size alone.

    Raises:
        UserError: nothing was scored yet, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = list(summaries(plan, results))
    if not rows:
        raise UserError("no run of the study has a test score yet: nothing to draw")
    across, looks = min(ACROSS, len(plan.tasks)), line_looks(plan)
    down = math.ceil(len(plan.tasks) / across)
    figure = Figure(figsize=(6 * across, 5 * down), dpi=160, layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in panels[len(plan.tasks) :]:
        panel.set_axis_off()
    for panel, (task, metric) in zip(panels, plan.scores().items(), strict=False):
        lines: dict[Line, list[dict[str, Any]]] = {}
        for row in rows:
            if row["task"] == task:
                lines.setdefault(looks[row["method"]], []).append(row)
        for line, points in lines.items():
            points = sorted(points, key=lambda row: row["numbers"])
            means = [_factor(metric) * statistics.mean(point["test"]) for point in points]
            bars = [_factor(metric) * statistics.stdev(p["test"]) if len(p["test"]) > 1 else 0.0 for p in points]
            panel.errorbar(
                [point["numbers"] for point in points], means, bars if any(bars) else None, color=line.colour,
                marker=line.marker, markerfacecolor=line.face, linestyle=line.dash, label=line.name, capsize=2,
            )  # fmt: skip
        better = "" if metric.greater_is_better else ", less is better"
        panel.set(xscale="log", xlabel="trained numbers in the adapter", ylabel=f"{_titled(metric)}{better}")
        _at_least_a_decade(panel)
        panel.set_title(task, loc="left", fontsize=10, color=INK)
        if lines:
            panel.legend(fontsize=7, frameon=False)
        tidy(panel)
    save(figure, path)


def _at_least_a_decade(panel: Axes) -> None:
    """Widen the logarithmic axis of numbers: the labels of a short one would lie upon each other."""
    low, high = panel.get_xlim()
    if high < 10 * low:
        middle = math.sqrt(low * high)
        panel.set_xlim(middle / math.sqrt(10), middle * math.sqrt(10))


def _factor(metric: Metric) -> int:
    """Shares and correlations are shown times a hundred, anything else as it is."""
    return 100 if metric.range[1] == 1 else 1


def _titled(metric: Metric) -> str:
    return f"{metric.title}{' × 100' if _factor(metric) > 1 else ''}"


def _spread(values: Sequence[float], metric: Metric) -> str:
    factor = _factor(metric)
    digits = 1 if factor > 1 else metric.digits
    mean = f"{factor * statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {factor * statistics.stdev(values):.{digits}f}"
