"""Which methods of a study are one line of its figure, and what it looks like."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from structune.figure_style import style_of
from structune.palette import GRID, SERIES
from structune.study.study_file import Study

_SIZE = re.compile(r",? (?:\w+=)?\d[\d.x]*\b")
_SIZE_AND_ITS_WORDS = re.compile(r", \d.*")
_DASHES = ["-", "--", ":", "-."]
_FACES = [None, "white", GRID]  # None: the line's colour


@dataclass(frozen=True)
class Line:
    """Methods that differ in their size alone.

    Attributes:
        name: for the legend.
        face: the colour inside its markers.
    """

    name: str
    colour: str
    marker: str
    dash: str
    face: str


def line_looks(plan: Study) -> dict[str, Line]:
    """The line of each method, by its label.

    Colour and marker are the method's; lines that have both in common get other dashes and faces, in the order of the
    file. Where all have, and are more than there are faces, each has a colour of its own. A name says no more of the
    size than tells it from the others: `C3A, 4 splits` is `C3A`.
    """
    methods = plan.settings()
    kinds = {label: _SIZE.sub("", label) for label in methods}
    short = {kind: _SIZE.sub("", _SIZE_AND_ITS_WORDS.sub("", label)) for label, kind in kinds.items()}
    styles = {kind: style_of(methods[label]) for label, kind in reversed(kinds.items())}  # the first label's counts
    uses, alike = Counter(short.values()), Counter[tuple[str, str]]()
    own_colours = len(set(styles.values())) == 1 and len(styles) > len(_FACES)
    lines: dict[str, Line] = {}
    for number, kind in enumerate(dict.fromkeys(kinds.values())):
        colour, marker = styles[kind]
        if own_colours:
            colour = SERIES[number % len(SERIES)]
        before = alike[colour, marker]
        alike[colour, marker] += 1
        name = short[kind] if uses[short[kind]] == 1 else kind
        lines[kind] = Line(name, colour, marker, _DASHES[before % len(_DASHES)], _FACES[before % len(_FACES)] or colour)
    return {label: lines[kind] for label, kind in kinds.items()}
