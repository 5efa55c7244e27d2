"""A matching as a picture: each class, what answers for it, and how many of its examples it answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structune.palette import BLUE, INK
from structune.tasks.parts.matching.matching import Matching

_REST = "#dcdcdc"
_MOST = 100  # classes that are drawn
_LONGEST = 36  # characters of a name


def draw_matching(matching: Matching, targets: Sequence[str], path: Path) -> Path:
    """Draw a bar of its examples for each class, coloured as far as its sources answered them, to a PNG file.

    Args:
        matching: which output answers for which class.
        targets: names of the classes.
        path: of the file.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    rows = list(matching.rows(targets).items())
    shown = rows[:_MOST]
    figure = Figure(figsize=(8, 1.1 + 0.27 * len(shown)), dpi=150 if len(shown) > 40 else 200, layout="constrained")
    axes = figure.add_subplot()
    names = [f"{_short(name)} ← {_short(row['source'])}" for name, row in shown]
    examples, answered = ([row[key] for _, row in shown] for key in ("examples", "answered"))
    places = range(len(shown))
    axes.barh(places, examples, color=_REST, label="answered otherwise")
    axes.barh(places, answered, color=BLUE, label="answered with it")
    for place, one, all_of_them in zip(places, answered, examples, strict=True):
        axes.annotate(
            f"{one:,} of {all_of_them:,}", (all_of_them, place), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_yticks(list(places), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max(examples))
    axes.set_xlabel("examples to train on")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    of = f"the first {_MOST} of {len(rows)} classes" if len(rows) > _MOST else "class ← pretrained outputs"
    axes.set_title(of, loc="left", fontsize=11, fontweight="bold")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.savefig(path, format="png")
    return path


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
