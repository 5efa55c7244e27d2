"""Labels of figures can be read."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from structune.comparison.labels import place_labels

CROWDS = {
    "one spot": [(10.0, 5.0)] * 6,
    "a column": [(10.0, 5 + 0.05 * n) for n in range(8)],
    "right edge": [(19.9, 1.0 + n) for n in range(5)],
    "corners": [(0.1, 0.1), (0.1, 9.9), (19.9, 0.1), (19.9, 9.9)],
    "side by side": [(7.0, 5.0), (9.0, 5.0)],
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_labels_cover_neither_one_another_nor_points(crowd: str) -> None:
    points = CROWDS[crowd]
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 20), ylim=(0, 10))
    for x, y in points:
        axes.errorbar(x, y, 0.6 if crowd == "side by side" else 0.0, capsize=3)
    figure.draw_without_rendering()
    place_labels(axes, points, [f"method {n}" for n in range(len(points))], ["black"] * len(points))
    figure.draw_without_rendering()
    labels = [text for text in axes.texts if isinstance(text, Annotation)]
    boxes = [Text.get_window_extent(label) for label in labels]
    assert sorted(label.get_text() for label in labels) == [f"method {n}" for n in range(len(points))]
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))
    assert not any(box.contains(*axes.transData.transform(point)) for box in boxes for point in points)
    if crowd == "side by side":
        ends = [axes.transData.transform((x, y + end)) for x, y in points for end in (-0.6, 0.6)]
        assert not any(box.contains(*end) for box in boxes for end in ends)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
