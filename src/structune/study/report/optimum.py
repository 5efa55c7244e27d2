"""Whether the best rate of a search lies inside the rates that were tried, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from structune.tasks.task import Metric

INSIDE, LARGEST, SMALLEST = "inside", "at the largest rate", "at the smallest rate"
LEVEL, ONE, FIXED, AWAY, NONE = "all alike", "one rate tried", "fixed", "ran away at all", "none tried"


class Optimum(NamedTuple):
    """Where the best rate lies.

    Attributes:
        rate: the best one on the validation part; None where there is none.
        where: in a word or two.
        ran_away: rates at which numbers ran away.
    """

    rate: float | None
    where: str
    ran_away: list[float]

    @property
    def sure(self) -> bool:
        """Whether smaller and larger rates were tried and are worse."""
        return self.where == INSIDE

    def said(self) -> str:
        """A sentence or two."""
        rate = "" if self.rate is None else f"{self.rate:.3g}"
        words = {
            INSIDE: f"{rate} is best, inside the rates that were tried.",
            LARGEST: f"{rate} is best, the largest that was tried: a larger one may be better.",
            SMALLEST: f"{rate} is best, the smallest that was tried: a smaller one may be better.",
            LEVEL: "All rates that were tried score the same: none of them changes anything, or all break it.",
            FIXED: f"{rate} is what the study's file says; nothing was searched.",
            ONE: f"Only {rate} was tried so far.",
            AWAY: "Numbers ran away at every rate that was tried.",
            NONE: "No rate was tried yet.",
        }[self.where]
        rates = ", ".join(f"{rate:.3g}" for rate in self.ran_away)
        return words if not rates or self.where == AWAY else f"{words} Numbers ran away at {rates}."


def optimum(tried: Mapping[float, float | None], metric: Metric, fixed: bool = False) -> Optimum:
    """Where the best of these rates lies.

    Args:
        tried: validation scores by rate; None: numbers ran away there.
        metric: what they are.
        fixed: whether the study's file says the rate.
    """
    fine = {rate: value for rate, value in sorted(tried.items()) if value is not None}
    away = [rate for rate, value in sorted(tried.items()) if value is None]
    if not fine:
        return Optimum(None, AWAY if away else NONE, away)
    best = max(fine, key=lambda rate: (fine[rate] if metric.greater_is_better else -fine[rate], -rate))
    if len(tried) == 1:
        return Optimum(best, FIXED if fixed else ONE, away)
    if len(fine) > 1 and len(set(fine.values())) == 1:
        return Optimum(best, LEVEL, away)
    where = SMALLEST if best == min(tried) else LARGEST if best == max(tried) else INSIDE
    return Optimum(best, where, away)
