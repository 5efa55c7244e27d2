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
        if len(fine) == len(known) and len(set(fine.values())) == 1:
            return Search([], best)  # no rate changes anything, and none beyond will
        smallest, largest = min(asked), max(asked)
        if best not in (None, smallest, largest) or len(asked) == len(rates.tried) + rates.further:
            return Search([], best)
        asked.append(smallest / rates.factor if best in (None, smallest) else largest * rates.factor)
