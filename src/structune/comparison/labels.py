"""Labels beside points that cover neither one another nor the points, nor their error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_NEAR = 11  # points (1/72 inch) between a point's centre and a label at its side
_PLACES = sorted(
    ((side * across, 13 * steps) for side in (1, -1) for across in (_NEAR, 26, 42) for steps in range(-14, 15)),
    key=lambda place: math.hypot(*place) + (20 if place[0] < 0 else 0) + (40 if place[1] > 0 else 0),
)
"""Offsets of a label in points, the best first: near, on the right rather than the left, below rather than above."""


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]
) -> None:
    """Write a text beside each point, at the best place where it covers nothing and stays inside the axes.

    A label that had to go up or down is joined to its point by a thin line. Where no place is free it goes to the
    right. The axes must be laid out already: call `figure.draw_without_rendering()` before.
    """
    from matplotlib.transforms import Bbox

    pixels = axes.figure.dpi / 72
    centres = [axes.transData.transform(point) for point in points]
    taken = [Bbox.from_bounds(x - 5 * pixels, y - 5 * pixels, 10 * pixels, 10 * pixels) for x, y in centres]
    taken += [text.get_window_extent() for text in axes.texts]
    # A collection is one point's error bar.
    taken += [bar.get_datalim(axes.transData).transformed(axes.transData) for bar in axes.collections]
    inside = axes.get_window_extent()
    # From top to bottom, so that labels of points above one another keep their order.
    for number in sorted(range(len(points)), key=lambda number: -points[number][1]):
        style: dict[str, Any] = {"fontsize": 9.5, "fontweight": "bold", "color": colours[number]}
        size = _size(axes, texts[number], style)
        chosen = (_NEAR, 0)
        for right, up in _PLACES:
            x, y = centres[number] + (right * pixels - (size.width if right < 0 else 0), up * pixels - size.height / 2)
            box = Bbox.from_bounds(x, y, size.width, size.height)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                chosen = (right, up)
                taken.append(box)
                break
        on_right = chosen[0] > 0
        line = {"arrowstyle": "-", "color": colours[number], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
        axes.annotate(
            texts[number], points[number], chosen, textcoords="offset points", ha="left" if on_right else "right",
            va="center", arrowprops=None if chosen[1] == 0 else line | {"relpos": (0 if on_right else 1, 0.5)},
            in_layout=False, **style,
        )  # fmt: skip


def _size(axes: Axes, text: str, style: dict[str, Any]) -> Bbox:
    """The text's box in pixels, wherever it lies."""
    written = axes.text(0, 0, text, **style)
    box = written.get_window_extent()
    written.remove()
    return box
