"""How the figures of tasks look, and how they are saved."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from structune.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 28  # characters of a name
_TO_AN_INCH = 8.5  # characters of a title, beside the axis' own labels


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one plain pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """Axes without a frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY, labelcolor=INK)
    axes.set_axisbelow(True)


def titled(axes: Axes, title: str) -> None:
    """A title at the left, as it stands: a dollar sign begins no formula. One that is too wide takes several lines."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by their figure
    lines = textwrap.fill(title, int(_TO_AN_INCH * figure.get_figwidth()))
    axes.set_title(lines, loc="left", fontsize=11, fontweight="bold", parse_math=False)


def short(name: str) -> str:
    """A name as it fits beside an axis."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG file; its path."""
    figure.savefig(path, format="png")
    return path
