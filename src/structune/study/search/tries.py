"""What a search tried, and which of it is best: the same wherever it is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from structune.study.search.points import Point


class Try(NamedTuple):
    """What a search tried with the first seed.

    Attributes:
        point: what.
        score: on the validation part; None: numbers ran away.
        number: of the try, in the order of its search.
    """

    point: Point
    score: float | None
    number: int = 0


def best_of(tries: Iterable[Try], greater_is_better: bool) -> Point | None:
    """Of equal ones that with the least rate, then the first; None where numbers ran away at all."""
    sign = 1 if greater_is_better else -1
    fine = [
        (sign * score, -point.rate, -number, point)
        for point, score, number in tries
        if score is not None and not math.isnan(score)
    ]
    return max(fine, key=lambda each: each[:3])[3] if fine else None
