"""What is taken for what, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from structune.palette import BLUE, GRID, INK
from structune.tasks.parts.classes.confusion import Counts
from structune.tasks.parts.figure import new_figure, save, short, titled

_MATRIX = 30  # classes that a matrix shows readably
_NUMBERED = 15  # classes whose cells have room for a number
_LARGEST = 25  # confusions of more classes


def draw_confusion(counts: Counts, names: Sequence[str], path: Path) -> Path:
    """Draw C (classes, classes), C[t, p] examples of class t answered as p: a matrix, or the largest confusions."""
    return _matrix(counts, names, path) if len(names) <= _MATRIX else _largest(counts, names, path)


def _matrix(counts: Counts, names: Sequence[str], path: Path) -> Path:
    """Each row in shares of its class."""
    from matplotlib.ticker import PercentFormatter

    size = len(names)
    side = min(max(4.2, 2.2 + 0.34 * size), 9.5)
    figure, axes = new_figure(side + 0.8, side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = [short(name) for name in names]
    axes.set_yticks(range(size), shown, parse_math=False)
    axes.set_xticks(range(size), shown, parse_math=False, rotation=45, ha="right", rotation_mode="anchor")
    if size <= _NUMBERED:
        for true, predicted in np.ndindex(size, size):
            dark = shares[true, predicted] > 0.55
            axes.text(
                predicted, true, f"{counts[true, predicted]:,}", ha="center", va="center", fontsize=8,
                color="white" if dark else INK,
            )  # fmt: skip
    axes.set_xlabel("answered")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    titled(axes, f"{np.trace(counts):,} of {counts.sum():,} right")
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return save(figure, path)


def _largest(counts: Counts, names: Sequence[str], path: Path) -> Path:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LARGEST]
    pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place]]
    figure, axes = new_figure(7.5, 1.3 + 0.24 * max(len(pairs), 1))
    values = [int(wrong[pair]) for pair in pairs]
    axes.barh(range(len(pairs)), values, color=BLUE, height=0.7)
    axes.set_yticks(
        range(len(pairs)),
        [f"{short(names[true])} → {short(names[predicted])}" for true, predicted in pairs],
        parse_math=False,
        fontsize=8,
    )
    for row, ((true, _), value) in enumerate(zip(pairs, values, strict=True)):
        axes.text(value, row, f" {value:,} ({value / counts[true].sum():.0%})", va="center", fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(values, default=1))
    axes.set_xlabel("examples (in brackets: share of the true class)")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    titled(axes, f"{np.trace(counts):,} of {counts.sum():,} right; the largest confusions, true → answered")
    return save(figure, path)
