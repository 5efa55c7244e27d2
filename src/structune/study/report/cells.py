"""What a study knows of each method on each task."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from structune.study.engine import summaries
from structune.study.rates import RAN_AWAY, Rates, search
from structune.study.results import Results
from structune.study.study_file import Study
from structune.tasks.task import Metric


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Attributes:
        runs: every result of it.
        rate: the one that was chosen and scored on the test part; None: none was yet.
        seeds: those with a test score at that rate, with the scores.
        tried: validation scores of the first seed by rate; None: numbers ran away.
        best: the best rate by the search as it is now; None: it is not over, or numbers ran away at all.
        rates_left: rates that its search has still to try, at least.
        seeds_left: seeds that have no test score at the best rate yet.
        first_seed: the one with which rates are searched.
        fixed: whether the file says the rate, so that none is searched.
    """

    task: str
    label: str
    metric: Metric
    runs: list[dict[str, Any]]
    rate: float | None
    seeds: dict[int, float]
    tried: dict[float, float | None]
    best: float | None
    rates_left: list[float]
    seeds_left: list[int]
    first_seed: int
    fixed: bool

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The runs with a test score at the chosen rate."""
        return [run for run in self.runs if run["rate"] == self.rate and run["test"] is not None]

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
        return not self.rates_left and all(value is None for value in self.tried.values())

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.hopeless or not (self.rates_left or self.seeds_left)

    @property
    def runs_left(self) -> int:
        """How many runs are left, at least: a search may go beyond its ends."""
        others = [
            seed for seed in self.seeds_left if seed != self.first_seed
        ]  # the first seed's are those of the search
        return 0 if self.hopeless else len(self.rates_left) + len(others)

    def state(self) -> str:
        """Where it stands, in a few words."""
        if not self.runs:
            return "not begun"
        if self.hopeless:
            return f"ran away at all {len(self.tried)} rates"
        scored = f"{len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'} scored" if self.seeds else ""
        if self.rates_left:
            searching = f"{len(self.tried)} of {len(self.tried) + len(self.rates_left)} rates tried"
            return f"{searching}, {scored}" if scored else searching
        if self.best is not None and self.seeds and self.best != self.rate:
            return f"{self.best:.3g} is best now, {scored} at {self.rate:.3g}"
        if self.seeds_left:
            return f"{len(self.seeds)} of {len(self.seeds) + len(self.seeds_left)} seeds scored"
        return "done"


def cells(plan: Study, results: Results) -> Iterator[Cell]:
    """Every method on every task, in the order of the file."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in results.all():
        found.setdefault((run["task"], run["method"]), []).append(run)
    chosen = {(row["task"], row["method"]): row for row in summaries(plan, results)}
    searches, first = plan.searches(), plan.seeds[0]
    for task, metric in plan.scores().items():
        for label in plan.settings():
            runs, row = found.get((task, label), []), chosen.get((task, label))
            of_first = sorted((run for run in runs if run["seed"] == first), key=lambda run: run["rate"])
            tried = {run["rate"]: None if (v := run["validation"]) is None else v[metric.key] for run in of_first}
            seeds = {} if row is None else dict(sorted(zip(row["seeds"], row["test"], strict=True)))
            best, rates_left = _search(tried, searches[label, task], metric)
            rate = None if row is None else row["rate"]
            counts = best is None or best == rate
            yield Cell(
                task, label, metric, runs, rate, seeds, tried, best, rates_left,
                [seed for seed in plan.seeds if not (counts and seed in seeds)], first,
                len(searches[label, task].tried) == 1 and not searches[label, task].further,
            )  # fmt: skip


def _search(tried: dict[float, float | None], rates: Rates, metric: Metric) -> tuple[float | None, list[float]]:
    """The best rate, where a search is over, and those that it has to try next."""
    known = {_named(rate): RAN_AWAY if value is None else value for rate, value in tried.items()}
    found = search(rates, lambda rate: known.get(_named(rate)), metric.greater_is_better)
    best = None if found.best is None else next(rate for rate in tried if _named(rate) == _named(found.best))
    return best, found.missing


def _named(rate: float) -> str:
    """A rate as the names of results have it."""
    return f"{rate:.3g}"
