"""A figure as SVG that takes its colours from the page that it is in, and as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from structune.palette import BLACK, GREY, GRID, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {INK.lower(): "--ink", BLACK: "--ink", GREY: "--soft", GRID: "--line", "#ffffff": "--paper"}
"""Colours that are the page's own."""

_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_HEAD = re.compile(r"<svg (.*?)>", re.DOTALL)
_NOT_SHOWN = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its file, without an ending.
        svg: to stand in a page of HTML: text is text, ids begin with the name, colours are the page's variables.
        png: the same with colours for white paper.
        colours: those of its own that are in it; the page gives each a variable, `--c-0072b2`.
    """

    name: str
    svg: str
    png: bytes
    colours: frozenset[str]


@contextmanager
def plain_text() -> Iterator[None]:
    """Figures that are made inside take no text for formulas: labels are their users'."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "svg.fonttype": "none", "font.size": 9}):
        yield


def drawn(figure: Figure, name: str, words: str, whole: bool = False) -> Drawn:
    """Draw a figure, inside the same `plain_text` in which it was made.

    Args:
        figure: what is drawn.
        name: for files and ids: letters, digits, `.`, `=`, `_` and `-`.
        words: what it shows, for those who do not see it.
        whole: whether it is as large as what is in it, and not as it was made.
    """
    import matplotlib

    page, picture = io.StringIO(), io.BytesIO()
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
    cut: dict[str, Any] = {"bbox_inches": "tight"} if whole else {}
    with matplotlib.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(page, format="svg", metadata=nothing, **cut)
    figure.savefig(picture, format="png", dpi=160, facecolor="white", **cut)
    svg = page.getvalue()
    head = _HEAD.search(svg)
    assert head is not None
    body = _NOT_SHOWN.sub("", svg[head.end() :])
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    styles = re.compile(r'(?<= style=")[^"]*')  # a colour in a label stays a label
    colours = frozenset(found for style in styles.findall(body) for found in _COLOUR.findall(style))
    body = styles.sub(lambda style: _COLOUR.sub(lambda found: f"var({variable(found[0])})", style[0]), body)
    size = dict(re.findall(r'(width|height)="([\d.]+)pt"', head[1]))
    box = f'viewBox="0 0 {size["width"]} {size["height"]}"'
    shown = f'width="{round(float(size["width"]) * 4 / 3)}" {box} role="img" aria-label="{escape(words)}"'
    return Drawn(name, f"<svg {shown}>{body}".strip(), picture.getvalue(), colours - _VARIABLES.keys())


def variable(colour: str) -> str:
    """The CSS variable of a colour."""
    return _VARIABLES.get(colour, f"--c-{colour[1:]}")
