"""What a study knows of each method on each task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from structune.study.engine import summaries
from structune.study.points import Point, Space
from structune.study.rates import RAN_AWAY, Rates, search
from structune.study.results import Results
from structune.study.study_file import Study
from structune.tasks.task import Metric


class Try(NamedTuple):
    """What a search tried with the first seed, and the validation score; None: numbers ran away."""

    point: Point
    score: float | None


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Attributes:
        runs: every result of it.
        point: what was chosen and scored on the test part; None: nothing was yet.
        seeds: those with a test score there, with the scores.
        tries: what its search tried, by rate.
        drawn: whether tries are drawn from ranges, and not the rates of the file and those beyond.
        best: the best try by the search as it is now; None: it is not over, or numbers ran away at all.
        tries_left: how many its search has still, at least.
        seeds_left: seeds that have no test score at the best try yet.
        first_seed: the one with which is searched.
        fixed: whether the file says the rate, so that none is searched.
    """

    task: str
    label: str
    metric: Metric
    runs: list[dict[str, Any]]
    point: Point | None
    seeds: dict[int, float]
    tries: list[Try]
    drawn: bool
    best: Point | None
    tries_left: int
    seeds_left: list[int]
    first_seed: int
    fixed: bool

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The runs with a test score at what was chosen."""
        return [run for run in self.runs if run["test"] is not None and point_of(run) == self.point]

    @property
    def score(self) -> float:
        """The mean test score; there has to be one."""
        return statistics.fmean(self.seeds.values())

    @property
    def numbers(self) -> int:
        """How many it trains in the adapter; there has to be a score."""
        return int(self.scored[0]["trainable_adapter"])

    @property
    def hopeless(self) -> bool:
        """Whether numbers ran away at every rate of a search that is over."""
        return not self.tries_left and all(one.score is None for one in self.tries)

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.hopeless or not (self.tries_left or self.seeds_left)

    @property
    def runs_left(self) -> int:
        """How many runs are left, at least: a search may go beyond its ends."""
        others = [
            seed for seed in self.seeds_left if seed != self.first_seed
        ]  # the first seed's are those of the search
        return 0 if self.hopeless else self.tries_left + len(others)

    def state(self) -> str:
        """Where it stands, in a few words."""
        if not self.runs:
            return "not begun"
        if self.hopeless:
            return f"ran away at all {len(self.tries)} {self._tries}"
        scored = f"{len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'} scored" if self.seeds else ""
        if self.tries_left:
            searching = f"{len(self.tries)} of {len(self.tries) + self.tries_left} {self._tries} tried"
            return f"{searching}, {scored}" if scored else searching
        if self.point is not None and self.best not in (None, self.point):
            return f"{said(self.best)} is best now, {scored} at {said(self.point)}"
        if self.seeds_left:
            return f"{len(self.seeds)} of {len(self.seeds) + len(self.seeds_left)} seeds scored"
        return "done"

    @property
    def _tries(self) -> str:
        return "points" if self.drawn else "rates"


def point_of(run: dict[str, Any]) -> Point:
    """What a run was made with."""
    return Point.of({"rate": run["rate"], **run.get("tried", {})})


def said(point: Point | None) -> str:
    """A point for a table: the rate, and what else was searched."""
    return "" if point is None else ", ".join([f"{point.rate:.3g}", *point.words()[1:]])


def cells(plan: Study, results: Results) -> Iterator[Cell]:
    """Every method on every task, in the order of the file."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in results.all():
        found.setdefault((run["task"], run["method"]), []).append(run)
    chosen = {(row["task"], row["method"]): row for row in summaries(plan, results)}
    searches, spaces, first = plan.searches(), plan.spaces(), plan.seeds[0]
    for task, metric in plan.scores().items():
        for label in plan.settings():
            runs, row, rates = found.get((task, label), []), chosen.get((task, label)), searches[label, task]
            of_first = [run for run in runs if run["seed"] == first]
            tries = [Try(point_of(r), None if (v := r["validation"]) is None else v[metric.key]) for r in of_first]
            tries.sort(key=lambda one: one.point)
            if plan.search is None or (space := spaces.get((label, task))) is None:
                drawn, (best, left) = False, _searched(tries, rates, metric)
            else:
                drawn, (best, left) = True, _drawn(tries, int(min(plan.search.trials, _size(space))), metric)
            point = None if row is None else point_of(row)
            seeds = {} if row is None else dict(sorted(zip(row["seeds"], row["test"], strict=True)))
            counts = best in (None, point)
            yield Cell(
                task, label, metric, runs, point, seeds, tries, drawn, best, left,
                [seed for seed in plan.seeds if not (counts and seed in seeds)], first,
                len(rates.tried) == 1 and not rates.further and not drawn,
            )  # fmt: skip


def _searched(tries: Sequence[Try], rates: Rates, metric: Metric) -> tuple[Point | None, int]:
    """The best rate, where a search of rates is over, and how many it has to try next."""
    known = {_named(one.point.rate): RAN_AWAY if one.score is None else one.score for one in tries}
    found = search(rates, lambda rate: known.get(_named(rate)), metric.greater_is_better)
    best = [one.point for one in tries if found.best is not None and _named(one.point.rate) == _named(found.best)]
    return best[0] if best else None, len(found.missing)


def _drawn(tries: Sequence[Try], trials: int, metric: Metric) -> tuple[Point | None, int]:
    """The same of a search whose tries are drawn."""
    sign = 1 if metric.greater_is_better else -1
    fine = [(sign * one.score, -one.point.rate, one.point) for one in tries if one.score is not None]
    over = len(tries) >= trials
    return max(fine, key=lambda each: each[:2])[2] if fine and over else None, max(0, trials - len(tries))


def _size(space: Space) -> float:
    """How many points there are."""
    values = [each.values() for each in space.values()]
    return math.prod(math.inf if each is None else len(each) for each in values)


def _named(rate: float) -> str:
    """A rate as the names of results have it."""
    return f"{rate:.3g}"
