"""What the axes of a report's figures have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from structune.palette import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ["o", "s", "^", "D", "v", "P"]  # not as many as colours, so that pairs repeat late
_SIGNS = dict(zip(_MARKERS, "●■▲◆▼✚", strict=True))


def task_looks(tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each task, in figures whose lines are tasks."""
    return {task: (SERIES[n % len(SERIES)], _MARKERS[n % len(_MARKERS)]) for n, task in enumerate(tasks)}


def sign(marker: str) -> str:
    """The letter that looks like one of these markers."""
    return _SIGNS[marker]


def log_axis(axes: Axes, values: Sequence[float], text: str = "{:,.0f}") -> None:
    """A logarithmic x-axis around the values, at least a decade long, whose labels are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    widened = max(1.25, math.sqrt(10 * low / high))
    low, high = low / widened, high * widened
    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.format(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def at_least_high(axes: Axes, height: float) -> None:
    """Widen the y-axis to both sides until it shows this much, so that small differences look small."""
    low, high = axes.get_ylim()
    if (missing := height - (high - low)) > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
