"""How well each label is found, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from structune.palette import BLUE, GRID, INK
from structune.tasks.parts.figure import new_figure, save, short, titled

_MOST = 40  # labels that are shown


def draw_labels(rows: Mapping[str, Mapping[str, float]], title: str, path: Path) -> Path:
    """Draw the F1 score of each label, the commonest first; of very many the first."""
    names = sorted(rows, key=lambda name: (-rows[name]["examples"], name))
    shown = names[:_MOST]
    figure, axes = new_figure(7.0, 1.3 + 0.24 * len(shown))
    values = [rows[name]["f1"] for name in shown]
    axes.barh(range(len(shown)), values, color=BLUE, height=0.7)
    axes.set_yticks(range(len(shown)), [short(name) for name in shown], parse_math=False, fontsize=8)
    for row, (name, value) in enumerate(zip(shown, values, strict=True)):
        axes.text(value, row, f" {value:.2f} of {rows[name]['examples']:,}", va="center", fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("F1, and of how many")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    titled(axes, title + (f"; the commonest {_MOST} of {len(names)} labels" if len(names) > _MOST else ""))
    return save(figure, path)
