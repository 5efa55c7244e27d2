"""What a study knows of each method on each task."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

from structune.study.results.counted import Counted, counted
from structune.study.results.files import Results
from structune.study.search.points import Point
from structune.study.study_file import Study


@dataclass(frozen=True)
class Cell(Counted):
    """One method on one task.

    Attributes:
        study_seeds: all that the study asks for; the first is the one with which is searched.
        fixed: whether the file says the rate, so that none is searched.
    """

    study_seeds: list[int]
    fixed: bool

    @cached_property
    def seeds(self) -> dict[int, float]:
        """Those with a test score at what was chosen, with the scores."""
        return dict(sorted((run["seed"], run["test"][self.metric.key]) for run in self.scored))

    @cached_property
    def ran_away(self) -> list[int]:
        """Seeds with which numbers ran away at the best try: they have no score, and will have none."""
        return [run["seed"] for run in self.runs if run["validation"] is None and Point.of_run(run) == self.best]

    @property
    def seeds_left(self) -> list[int]:
        """Those that have no test score at the best try yet."""
        counts = self.best in (None, self.point)
        known = {*(self.seeds if counts else ()), *self.ran_away}
        return [seed for seed in self.study_seeds if seed not in known]

    @property
    def score(self) -> float:
        """The mean test score; there has to be one."""
        return statistics.fmean(self.seeds.values())

    @property
    def sign(self) -> int:
        """1 where more is better, else −1."""
        return 1 if self.metric.greater_is_better else -1

    @property
    def upwards(self) -> float:
        """The mean test score with the sign by which more is better; there has to be one."""
        return self.sign * self.score

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
        others = [seed for seed in self.seeds_left if seed != self.study_seeds[0]]  # that one's are the search's
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
        away = "; ran away with others" if self.ran_away else ""
        if self.seeds_left:
            return f"{len(self.seeds)} of {len(self.study_seeds)} seeds scored{away}"
        return f"{scored}{away}" if away else "done"

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
        fixed = len(rates.tried) == 1 and not rates.further and not one.drawn
        own = {each.name: getattr(one, each.name) for each in fields(one)}
        yield Cell(**own, study_seeds=plan.seeds, fixed=fixed)


def by_label(known: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The tasks of each method, in the order of the cells."""
    found: dict[str, list[Cell]] = {}
    for cell in known:
        found.setdefault(cell.label, []).append(cell)
    return found
