"""Whether the best rate of a search lies inside the rates that were tried, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from structune.study.report.cells import said
from structune.study.search.tries import Try, best_of
from structune.tasks.task import Metric

INSIDE, LARGEST, SMALLEST = "inside", "at the largest rate", "at the smallest rate"
LEVEL, ONE, FIXED, AWAY, NONE = "all alike", "one rate tried", "fixed", "ran away at all", "none tried"


class Optimum(NamedTuple):
    """Where the best rate lies.

    Attributes:
        rate: the best one on the validation part, with what else was searched; empty where there is none.
        where: in a word or two.
        ran_away: rates at which numbers ran away.
    """

    rate: str
    where: str
    ran_away: list[float]

    @property
    def sure(self) -> bool:
        """Whether smaller and larger rates were tried and are worse."""
        return self.where == INSIDE

    def said(self) -> str:
        """A sentence or two."""
        words = {
            INSIDE: f"{self.rate} is best, inside the rates that were tried.",
            LARGEST: f"{self.rate} is best, the largest that was tried: a larger one may be better.",
            SMALLEST: f"{self.rate} is best, the smallest that was tried: a smaller one may be better.",
            LEVEL: "All rates that were tried score the same: none of them changes anything, or all break it.",
            FIXED: f"{self.rate} is what the study's file says; nothing was searched.",
            ONE: f"Only {self.rate} was tried so far.",
            AWAY: "Numbers ran away at every rate that was tried.",
            NONE: "No rate was tried yet.",
        }[self.where]
        rates = ", ".join(f"{rate:.3g}" for rate in self.ran_away)
        return words if not rates or self.where == AWAY else f"{words} Numbers ran away at {rates}."


def optimum(tries: Sequence[Try], metric: Metric, fixed: bool = False) -> Optimum:
    """Where the best of these rates lies.

    Args:
        tries: what was tried.
        metric: of the scores.
        fixed: whether the study's file says the rate.
    """
    scores = [one.score for one in tries if one.score is not None]
    away = sorted(one.point.rate for one in tries if one.score is None)
    best = best_of(tries, metric.greater_is_better)
    if best is None:
        return Optimum("", AWAY if away else NONE, away)
    rates = {one.point.rate for one in tries}
    if fixed or len(rates) == 1:
        return Optimum(said(best), FIXED if fixed else ONE, away)
    if len(scores) > 1 and len(set(scores)) == 1:
        return Optimum(said(best), LEVEL, away)
    where = SMALLEST if best.rate == min(rates) else LARGEST if best.rate == max(rates) else INSIDE
    return Optimum(said(best), where, away)
