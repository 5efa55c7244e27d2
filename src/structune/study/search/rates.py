"""The search of a learning rate: the same for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Rates(NamedTuple):
    """The rates that every method is tried with, and how far a search goes beyond them.

    Attributes:
        tried: by every method.
        factor: between a rate and the next one beyond an end.
        further: how many of these there may be.
    """

    tried: Sequence[float]
    factor: float
    further: int


class Search(NamedTuple):
    """How far a search has come.

    Attributes:
        missing: the rates to try now, side by side; none: the search is over.
        best: the rate with the best score; None where numbers ran away at all of them, and before the search is over.
    """

    missing: list[float]
    best: float | None


RAN_AWAY = math.nan
"""In place of a score: numbers ran away, which is worse than any."""


def search(rates: Rates, score: Callable[[float], float | None], greater_is_better: bool = True) -> Search:
    """The rates of the file, then more beyond the end at which the best one is.

    Where all of them are level, such as at the commonest answer, they are all too large or all too small, and the
    score does not say which: further rates are then tried below and above in turn, until one differs. Where none does,
    the least of the file's is chosen. A single rate is no search, unless numbers ran away at it.

    Nothing is kept between calls: what there is to do follows from the scores.

    Args:
        rates: what is searched.
        score: of a rate, or `RAN_AWAY`; None where it was not tried yet.
        greater_is_better: what is best, the greatest score or the least.
    """
    sign = 1 if greater_is_better else -1
    asked = sorted(rates.tried)
    while True:
        known = {rate: score(rate) for rate in asked}
        if missing := [rate for rate, value in known.items() if value is None]:
            return Search(missing, None)
        fine = {rate: value for rate, value in known.items() if value is not None and not math.isnan(value)}
        best = max(fine, key=lambda rate: (sign * fine[rate], -rate)) if fine else None
        smallest, largest = min(asked), max(asked)
        level = len(set(fine.values())) == 1 and all(rate in fine for rate in rates.tried)
        if level:
            best = min(rates.tried)
        over = len(asked) == len(rates.tried) + rates.further or (level and len(rates.tried) == 1)
        if over or (not level and best not in (None, smallest, largest)):
            return Search([], best)
        # Below first: of 54 runs in this project's studies that ended at the commonest answer while another rate of
        # their method did not, 41 were above the best rate and 13 below it.
        below = len([rate for rate in asked if rate < min(rates.tried)])
        above = len(asked) - len(rates.tried) - below
        downwards = below <= above or largest not in fine if level else best in (None, smallest)
        asked.append(smallest / rates.factor if downwards else largest * rates.factor)
