"""A comparison as a picture: what a method reaches with how many numbers, and what its steps cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from structune.comparison.labels import place_labels
from structune.figure_style import method_style, save, tidy
from structune.finetune.run_folder.reported import reported
from structune.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from structune.comparison.side_by_side import Comparison, Row

BASELINE = "head"


def draw_tradeoff(comparison: Comparison, path: Path) -> None:
    """Draw the score against trained numbers, and the time of a step relative to the head alone, to a PNG.

    A method that trains no number besides the head is a level line on the left. Without a run of the head alone the
    fastest method is the unit of time.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    height = max(4.2, 1.6 + 0.42 * len(comparison.rows))
    figure = Figure(figsize=(10, height), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _draw_costs(right, comparison.rows)
    _draw_scores(left, comparison.rows)
    figure.suptitle(comparison.name, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    figure.draw_without_rendering()  # labels are placed on the laid-out page
    adapted = [row for row in comparison.rows if row.trainable_adapter]
    place_labels(
        left,
        [(row.trainable_adapter, _height(row, row.score)) for row in adapted],
        [f"{row.method} {row.metric.plain(row.score)}" for row in adapted],
        [method_style(row.method)[0] for row in adapted],
    )
    save(figure, path)


def _draw_scores(axes: Axes, rows: list[Row]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    adapted = [row for row in rows if row.trainable_adapter]
    for row in adapted:
        colour, marker = method_style(row.method)
        axes.errorbar(
            row.trainable_adapter, _height(row, row.score), _height(row, _bar(row)), color=colour, marker=marker,
            markersize=9, markeredgecolor="white", elinewidth=1.2, capsize=3, zorder=3,
        )  # fmt: skip
    if adapted:
        numbers = [row.trainable_adapter for row in adapted]
        axes.set(xscale="log", xlim=(min(numbers) / 2.2, max(numbers) * 3.5))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(numbers) < 100 * min(numbers) else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        axes.set_xticks([])
    for row in rows:
        if not row.trainable_adapter:
            axes.axhline(_height(row, row.score), color=GREY, linewidth=1.4, linestyle="--")
            axes.annotate(
                f"{row.method} alone {row.metric.plain(row.score)}", (0, _height(row, row.score)),
                xycoords=("axes fraction", "data"), xytext=(6, 5), textcoords="offset points", color=INK, fontsize=9,
            )  # fmt: skip
    low = min(_height(row, row.score - _bar(row)) for row in rows)
    high = max(_height(row, row.score + _bar(row)) for row in rows)
    margin = max(1.0, 0.12 * (high - low)) if rows[0].metric.percent else 0.12 * (high - low) or 0.1 * abs(high)
    axes.set_ylim(low - margin, min(high + margin, 101) if rows[0].metric.percent else high + margin)
    axes.set_xlabel("trained numbers in the adapter")
    axes.set_ylabel(rows[0].metric.unit_title)
    part = reported(*(run for row in rows for run in row.runs))
    examples = part.examples(rows[0].runs[0])
    bars = f"standard error, {examples:,} examples" if rows[0].error is not None else ""
    bars = bars if rows[0].deviation is None else f"± over {len(rows[0].runs)} seeds"
    less = "" if rows[0].metric.greater_is_better else "less is better"
    aside = "; ".join(part for part in (less, f"bars: {bars}" if bars else "") if part)
    axes.set_title(f"{part.words} {rows[0].metric.title}{f' ({aside})' if aside else ''}", loc="left", fontsize=10)
    tidy(axes)


def _bar(row: Row) -> float:
    """Half the error bar: over the seeds where there are several, else from the number of held-out examples."""
    return (row.error or 0.0) if row.deviation is None else row.deviation


def _height(row: Row, value: float) -> float:
    """Where a score stands in the figure: shares in percent."""
    return 100 * value if row.metric.percent else value


def _draw_costs(axes: Axes, rows: list[Row]) -> None:
    unit = next((row for row in rows if row.method == BASELINE), min(rows, key=lambda row: row.seconds_per_step))
    for place, row in enumerate(rows):
        ratio = row.seconds_per_step / unit.seconds_per_step
        axes.barh(place, ratio, 0.62, color=method_style(row.method)[0])
        axes.annotate(
            f"{ratio:.2f}", (ratio, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.set_ylim(max(len(rows), 4) - 0.5, -0.5)
    axes.margins(x=0.15)
    name = f"{unit.method} alone" if unit.method == BASELINE else unit.method
    axes.set_xlabel(f"{name} = 1 ({unit.seconds_per_step:.2g} s here)")
    axes.set_title("time of a training step", loc="left", fontsize=10)
    tidy(axes, "x")
    axes.tick_params(axis="y", length=0)
