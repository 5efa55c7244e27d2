"""The results of a study that count for it as its file is now, and what its searches come to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from structune.study.results.files import Results
from structune.study.search.points import Point, SearchSection, Space, listed
from structune.study.search.rates import RAN_AWAY, Rates, search
from structune.study.search.tries import Try, best_of
from structune.study.study_file import Study
from structune.tasks.task import Metric


@dataclass(frozen=True)
class Counted:
    """Of one method on one task.

    Attributes:
        runs: the results that count: with a seed of the study, at what its search asked for.
        left_out: all others.
        tries: what its search tried, by rate.
        drawn: whether tries are drawn from ranges, and not the rates of the file and those beyond.
        best: the best try by the search as it is now; None: it is not over, or numbers ran away at all.
        tries_left: how many its search has still, at least.
        point: what was scored on the test part: the best try, or what an earlier search chose; None: nothing was.
    """

    task: str
    label: str
    metric: Metric
    runs: list[dict[str, Any]]
    left_out: list[dict[str, Any]]
    tries: list[Try]
    drawn: bool
    best: Point | None
    tries_left: int
    point: Point | None

    @cached_property
    def scored(self) -> list[dict[str, Any]]:
        """The runs with a test score at what was chosen."""
        return [run for run in self.runs if run["test"] is not None and Point.of_run(run) == self.point]


def counted(plan: Study, results: Results) -> Iterator[Counted]:
    """Every method on every task, in the order of the file."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in results.all():
        found.setdefault((run["task"], run["method"]), []).append(run)
    searches, spaces = plan.searches(), plan.spaces()
    for task, metric in plan.scores().items():
        for label in plan.settings():
            all_runs, space = found.get((task, label), []), spaces.get((label, task))
            own = [run for run in all_runs if run["seed"] in plan.seeds]
            of_first = [run for run in own if run["seed"] == plan.seeds[0]]
            drawn = plan.search is not None and space is not None
            if plan.search is None or space is None:
                tries, asked, best, left = _searched(of_first, searches[label, task], metric)
                runs = [run for run in own if not Point.of_run(run).more and _named(run["rate"]) in asked]
            else:
                tries, best, left = _drawn(of_first, space, plan.search, metric)
                runs = [run for run in own if _of_these(run, tries, _numbers([run], space, plan.search))]
            left_out = [run for run in all_runs if run not in runs]
            point = _chosen(runs, tries, best, plan.seeds[0], metric)
            yield Counted(task, label, metric, runs, left_out, tries, drawn, best, left, point)


def summaries(plan: Study, results: Results) -> Iterator[dict[str, Any]]:
    """For each method and task that has a test score: what it trained, at which rate, and the scores of its seeds."""
    for found in counted(plan, results):
        if own := found.scored:
            key = found.metric.key
            yield {
                "task": found.task,
                "method": found.label,
                "numbers": own[0]["trainable_adapter"],
                "rate": own[0]["rate"],
                "tried": own[0].get("tried", {}),
                "validation": [r["validation"][key] for r in own],
                "test": [r["test"][key] for r in own],
                "untrained": own[0].get("untrained", {}).get(key),
                "seeds": [r["seed"] for r in own],
            }


def _searched(
    runs: Sequence[dict[str, Any]], rates: Rates, metric: Metric
) -> tuple[list[Try], set[str], Point | None, int]:
    """Of a search of rates: its tries, the names of all rates that it asked for, the best, and how many come next."""
    known = {_named(run["rate"]): run for run in runs if not Point.of_run(run).more}
    asked: dict[str, int] = {}

    def score(rate: float) -> float | None:
        asked.setdefault(_named(rate), len(asked))
        run = known.get(_named(rate))
        return None if run is None else RAN_AWAY if (value := _validation(run, metric)) is None else value

    found = search(rates, score, metric.greater_is_better)
    tries = [Try(Point.of_run(run), _validation(run, metric), asked[n]) for n, run in known.items() if n in asked]
    best = None if found.best is None else Point.of_run(known[_named(found.best)])
    return sorted(tries, key=lambda one: one.point), set(asked), best, len(found.missing)


def _drawn(
    runs: Sequence[dict[str, Any]], space: Space, section: SearchSection, metric: Metric
) -> tuple[list[Try], Point | None, int]:
    """Of a search whose tries are drawn: these, the best, and how many are left."""
    numbers = _numbers(runs, space, section)
    scores = {Point.of_run(run): _validation(run, metric) for run in reversed(runs)}
    tries = [Try(point, scores[point], number) for point, number in sorted(numbers.items())]
    left = max(0, int(min(section.trials, _size(space))) - len(tries))
    return tries, None if left else best_of(tries, metric.greater_is_better), left


def _numbers(runs: Sequence[dict[str, Any]], space: Space, section: SearchSection) -> dict[Point, int]:
    """The numbers of tries that runs are of: a run of another search has none, but where all points are tried."""
    all_tried = section.sampler == "grid" or _size(space) <= section.trials
    whole = {point: number for number, point in enumerate(listed(space))} if all_tried else {}
    found: dict[Point, int] = {}
    for run in runs:
        point = Point.of_run(run)
        number = whole.get(point, -1) if section.sampler == "grid" else run.get("try", whole.get(point, -1))
        if point.inside(space) and (point in whole or (0 <= number < section.trials and number not in found.values())):
            found.setdefault(point, number)
    return found


def _of_these(run: dict[str, Any], tries: Sequence[Try], numbers: dict[Point, int]) -> bool:
    """Whether a run is at one of these tries, or at one whose run of the first seed is elsewhere."""
    point = Point.of_run(run)
    return any(one.point == point for one in tries) or (
        point in numbers and all(one.number != numbers[point] for one in tries)
    )


def _chosen(
    runs: Sequence[dict[str, Any]], tries: Sequence[Try], best: Point | None, first_seed: int, metric: Metric
) -> Point | None:
    """What was scored on the test part; what an earlier choice scored counts only until the search's best is."""
    scored = [run for run in runs if run["test"] is not None]
    scored = [run for run in scored if run["seed"] == first_seed] or scored
    if best is not None and any(Point.of_run(run) == best for run in scored):
        return best
    numbers = {one.point: one.number for one in tries}
    return best_of(
        (Try(point := Point.of_run(run), _validation(run, metric), numbers.get(point, 0)) for run in scored),
        metric.greater_is_better,
    )


def _validation(run: dict[str, Any], metric: Metric) -> float | None:
    return None if run["validation"] is None else float(run["validation"][metric.key])


def _size(space: Space) -> float:
    """How many points there are."""
    values = [each.values() for each in space.values()]
    return math.prod(math.inf if each is None else len(each) for each in values)


def _named(rate: float) -> str:
    """A rate as the names of results have it."""
    return f"{rate:.3g}"
