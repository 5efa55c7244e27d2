"""Numbers as people write them into cells: with a point or a comma, in percent, or out of something."""

from __future__ import annotations

import re
from collections.abc import Collection

NUMBER = r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?"
_MEASURE = re.compile(rf"({NUMBER})\s*(%|/\s*\d+)?")


def as_numbers(cells: Collection[str]) -> dict[str, float]:
    """The number in each cell, if all hold one and are measured alike: `55%` and `7%`, `3/10` and `0/10`; else none."""
    found = {cell: match for cell in cells if (match := _MEASURE.fullmatch(cell))}
    units = {"".join((match[2] or "").split()) for match in found.values()}
    if len(found) < len(cells) or len(units) > 1:
        return {}
    return {cell: float(match[1].replace(",", ".")) for cell, match in found.items()}
