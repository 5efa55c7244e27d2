"""The picture of the families: one small matrix of each, and a grid of blocks with numbers of their own or of a pool.

    python docs/assets/matrices.py

writes matrices-light.png and matrices-dark.png beside this file. It asks the registry, so a new family appears.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from structune import StructuredDelta, structures

matplotlib.use("agg")

SIZE = 16
"""Rows and columns of a family's matrix."""
BLOCK, SPLITS, POOL = 8, 4, 12
"""Size of a block of the grids, blocks per axis, numbers in the pool."""
MOST = 7
"""Families in a row."""
WIDTH = 8.8
"""Inches: 1,760 pixels, twice the width of a README."""


@dataclass(frozen=True)
class Colours:
    """Of the page, of the words on it, and of entries below, at and above zero."""

    paper: str
    ink: str
    quiet: str
    low: str
    zero: str
    high: str


COLOURS = {
    "light": Colours("#ffffff", "#1f2328", "#59636e", low="#0b5aa8", zero="#f4f1ea", high="#d1560a"),
    "dark": Colours("#0d1117", "#e6edf3", "#9198a1", low="#4c9df2", zero="#1c232c", high="#f58a3c"),
}


def matrix(family: str) -> Tensor:
    """One block of the family (SIZE, SIZE), of random numbers."""
    return filled(StructuredDelta(SIZE, SIZE, structure=family, num_splits=1, init_weights=False))


def grid(**options: int) -> StructuredDelta:
    """Toeplitz blocks, SPLITS to an axis."""
    return StructuredDelta(BLOCK * SPLITS, BLOCK * SPLITS, structure="toeplitz", num_splits=SPLITS, **options)


def filled(delta: StructuredDelta) -> Tensor:
    """ΔW with numbers that are far from zero and from each other, so that one reads them off the colours."""
    numbers = torch.linspace(-1, 1, delta.num_trainable)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(5))
    delta.set_numbers(numbers[order])
    return delta.dense().detach()


def draw(axes: Axes, entries: Tensor, colours: Colours, blocks: int = 1) -> None:
    """A matrix as coloured squares, with lines between its blocks."""
    scale = entries.abs().flatten().quantile(0.97)
    shades = LinearSegmentedColormap.from_list("entries", [colours.low, colours.zero, colours.high])
    axes.imshow((entries / scale).numpy(), cmap=shades, vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for number in range(1, blocks):
        for line in (axes.axhline, axes.axvline):
            line(number * len(entries) / blocks - 0.5, color=colours.paper, linewidth=1.6)


def picture(colours: Colours) -> Figure:
    """All families in rows, below them the grids with a sentence each."""
    names = structures.names()
    rows = math.ceil(len(names) / MOST)
    columns = math.ceil(len(names) / rows)
    side = WIDTH / columns
    small, large = rows * (side + 0.12), 2.35
    height = small + large
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor=colours.paper)

    def place(left: float, top: float, width: float) -> Axes:
        return figure.add_axes((left / WIDTH, 1 - (top + width) / height, width / WIDTH, width / height))

    for number, name in enumerate(names):
        left, top = number % columns * side, number // columns * (side + 0.12)
        axes = place(left + 0.07, top + 0.3, side - 0.14 - 0.06)
        draw(axes, matrix(name), colours)
        axes.set_title(name, fontsize=8.2, color=colours.ink, pad=4, loc="left")
    own, pooled = grid(), grid(pool_size=POOL)
    texts = {
        "numbers of their own": (
            own,
            f"{SPLITS * SPLITS} Toeplitz blocks,\n{own.num_trainable} numbers:\nevery block has\nits own.",
        ),
        "one pool": (
            pooled,
            f"The same grid\nfrom {pooled.num_trainable} numbers:\nevery block reads\nthem in an order\nof its own.",
        ),
    }
    for number, (heading, (delta, body)) in enumerate(texts.items()):
        left, top = number * WIDTH / 2, small + 0.22
        draw(place(left + 0.07, top, 2.0), filled(delta), colours, SPLITS)
        x, y = (left + 2.25) / WIDTH, 1 - (top + 0.02) / height
        figure.text(x, y, heading, fontsize=10, weight="bold", color=colours.ink, va="top")
        figure.text(x, y - 0.24 / height, body, fontsize=9, color=colours.quiet, va="top", linespacing=1.35)
    return figure


if __name__ == "__main__":
    for mode, colours in COLOURS.items():
        file = Path(__file__).with_name(f"matrices-{mode}.png")
        shown = " ".join(structures.names())  # a test asks whether the file is older than a family
        picture(colours).savefig(file, facecolor=colours.paper, metadata={"Description": shown})
