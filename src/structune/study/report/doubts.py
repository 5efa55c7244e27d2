"""What of the results does not belong together, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from structune.study.report.cells import Cell, said
from structune.study.results.files import Results
from structune.study.search.points import Point
from structune.study.study_file import Study

_OF_ONE_RUN = {"seed", "method", "train.learning_rate", "train.head_learning_rate"}
_SHOWN = 5


def doubts(plan: Study, cells: Sequence[Cell], results: Results) -> Iterator[str]:
    """Results that the study does not name or ask for, and settings in which runs differ that should be alike."""
    yield from _strangers(plan, results)
    yield from _left_out(cells)
    yield from _ran_away(cells)
    searched = set() if plan.search is None else set(plan.search.ranges)
    for task in plan.tasks:
        runs = [run for cell in cells if cell.task == task for run in cell.runs]
        if found := _differing([_flat(run["settings"]) for run in runs if "settings" in run], searched):
            yield f"{task}: runs differ in {_listed(found)}, so that their scores are no comparison of methods alone."
    methods = plan.settings()
    for label, method in methods.items():
        stored = [run["settings"] for cell in cells if cell.label == label for run in cell.runs if "settings" in run]
        now = {"method": method.model_dump(mode="json", exclude_none=True)}
        own = [_flat({"method": settings.get("method", {})}) for settings in (*stored, now)]
        if found := [key.removeprefix("method.") for key in _differing(own, searched, of_method=True)]:
            yield f"{label}: some runs have another {_listed(found)} than the study's file has now."


def _strangers(plan: Study, results: Results) -> Iterator[str]:
    known = set(plan.settings())
    strange = [run for run in results.all() if run["task"] not in plan.tasks or run["method"] not in known]
    if strange:
        names = list(dict.fromkeys(f"{run['method']} on {run['task']}" for run in strange))
        yield (
            f"{len(strange)} results are of methods or tasks that the study's file does not name, and are left out: "
            f"{_listed(names)}."
        )


def _left_out(cells: Sequence[Cell]) -> Iterator[str]:
    names = [
        f"{cell.label} on {cell.task} at {said(Point.of_run(run))}, seed {run['seed']}"
        for cell in cells
        for run in cell.left_out
    ]
    if names:
        count = "1 result is" if len(names) == 1 else f"{len(names)} results are"
        yield (
            f"{count} of seeds, rates or tries that the study's file does not ask for as it is now, "
            f"and left out: {_listed(names, '; ')}."
        )


def _ran_away(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        if cell.ran_away:
            seeds = ", ".join(map(str, sorted(cell.ran_away)))
            yield (
                f"{cell.label} on {cell.task}: numbers ran away at {said(cell.best)} with seed {seeds}; its mean, "
                f"interval and tests are of the other seeds alone."
            )


def _differing(settings: Sequence[dict[str, Any]], searched: set[str], of_method: bool = False) -> list[str]:
    """Keys that have several values; what only some have came with a later version, or is of another kind."""
    differ = searched if of_method else searched | _OF_ONE_RUN
    values: dict[str, set[str]] = {}
    for each in settings:
        for key, value in each.items():
            if not any(key == own or key.startswith(f"{own}.") for own in differ):
                values.setdefault(key, set()).add(repr(value))
    return [key for key, found in values.items() if len(found) > 1]


def _flat(content: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) and value else {f"{before}{key}": value}
    return found


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{between.join(names[:_SHOWN])}{more}"
