"""What a study knows of each method on each task."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from structune.study.counted import counted, point_of
from structune.study.points import Point
from structune.study.results import Results
from structune.study.study_file import Study
from structune.study.tries import Try
from structune.tasks.task import Metric


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Attributes:
        runs: every result of it that counts for the study as its file is now.
        point: what was chosen and scored on the test part; None: nothing was yet.
        seeds: those with a test score there, with the scores.
        tries: what its search tried, by rate.
        drawn: whether tries are drawn from ranges, and not the rates of the file and those beyond.
        best: the best try by the search as it is now; None: it is not over, or numbers ran away at all.
        tries_left: how many its search has still, at least.
        seeds_left: seeds that have no test score at the best try yet.
        first_seed: the one with which is searched.
        fixed: whether the file says the rate, so that none is searched.
        left_out: results that do not count: of seeds, rates or tries that the study does not ask for.
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
    left_out: list[dict[str, Any]] = field(default_factory=list)

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


def said(point: Point | None) -> str:
    """A point for a table: the rate, and what else was searched."""
    return "" if point is None else ", ".join([f"{point.rate:.3g}", *point.words()[1:]])


def cells(plan: Study, results: Results) -> Iterator[Cell]:
    """Every method on every task, in the order of the file."""
    searches = plan.searches()
    for one in counted(plan, results):
        rates = searches[one.label, one.task]
        seeds = dict(sorted((run["seed"], run["test"][one.metric.key]) for run in one.scored))
        counts = one.best in (None, one.chosen)
        yield Cell(
            one.task, one.label, one.metric, one.runs, one.chosen, seeds, one.tries, one.drawn, one.best,
            one.tries_left, [seed for seed in plan.seeds if not (counts and seed in seeds)], plan.seeds[0],
            len(rates.tried) == 1 and not rates.further and not one.drawn, one.left_out,
        )  # fmt: skip
