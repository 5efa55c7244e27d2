"""What one rate for all tasks costs."""

from __future__ import annotations

import math

import pytest

from structune.study.report import findings
from structune.study.report.cells import Cell, cells
from structune.study.report.one_rate import at_rates, common_rate
from structune.study.report.tables import one_rate_table
from structune.study.search.points import Point
from structune.study.search.tries import Try
from structune.tasks.task import Metric

from .conftest import MadeUp

POOL, LORA = "pool 13", "LoRA r=8"


def scores(study: MadeUp, label: str, by_task: dict[str, dict[float, float | None]]) -> None:
    for task, own in by_task.items():
        for rate, score in own.items():
            study.add(task, label, rate, 0, score)


@pytest.fixture
def searched(made_up: MadeUp) -> MadeUp:
    """A pool whose best rates differ, and a LoRA that one rate ruins."""
    scores(made_up, POOL, {
        "one": {0.001: 0.70, 0.004: 0.72, 0.016: 0.69},
        "two": {0.001: 0.80, 0.004: 0.81, 0.016: 0.85, 0.064: 0.84},
    })  # fmt: skip
    scores(made_up, LORA, {
        "one": {0.001: 0.75, 0.004: 0.74, 0.016: None, 0.00025: 0.73},
        "two": {0.001: 0.90, 0.004: 0.88, 0.016: 0.5, 0.00025: 0.87},
    })  # fmt: skip
    return made_up


def test_costs_are_means_over_tasks(searched: MadeUp) -> None:
    found = {(one.label, one.rate): one for one in at_rates(list(cells(searched.plan, searched.results)))}
    # 0.064 was tried on one of two tasks alone.
    assert set(found) == {(POOL, r) for r in (0.001, 0.004, 0.016)} | {(LORA, r) for r in (2.5e-4, 0.001, 0.004, 0.016)}
    means = {key: one.mean for key, one in found.items()}
    assert means == pytest.approx({
        (POOL, 0.001): (2 + 5) / 2, (POOL, 0.004): (0 + 4) / 2, (POOL, 0.016): (3 + 0) / 2,
        (LORA, 2.5e-4): (2 + 3) / 2, (LORA, 0.001): 0, (LORA, 0.004): (1 + 2) / 2, (LORA, 0.016): math.inf,
    })  # fmt: skip
    assert (found[POOL, 0.004].most, found[POOL, 0.004].where) == (pytest.approx(4), "two")
    assert (found[POOL, 0.016].most, found[POOL, 0.016].where) == (pytest.approx(3), "one")
    assert found[POOL, 0.004].tasks == 2


def test_the_common_rate_is_the_one_of_most_methods_that_costs_least(searched: MadeUp) -> None:
    common = common_rate(at_rates(list(cells(searched.plan, searched.results))))
    # Three rates have both methods; their mean costs are (3.5 + 0) / 2, (2 + 1.5) / 2 and infinite.
    assert {one.rate for one in common} <= {0.001, 0.004}
    assert [one.label for one in common] == [POOL, LORA]
    assert common_rate([]) == []


def test_what_is_said_and_shown(searched: MadeUp) -> None:
    known = at_rates(list(cells(searched.plan, searched.results)))
    assert findings.one_rate([one for one in known if one.rate == 0.004]) == (
        "One rate of 0.004 for 2 methods costs 1.5 to 2 on average over tasks, most of all pool 13"
    )
    assert findings.one_rate([one for one in known if one.rate == 0.016]) == (
        "One rate of 0.016 for 2 methods costs 1.5 on average over tasks, most of all pool 13; "
        "in 1 method numbers ran away"
    )
    assert findings.one_rate([]) == ""
    assert one_rate_table(known).markdown().splitlines() == [
        "| method | tasks | 0.00025 | 0.001 | 0.004 | 0.016 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| pool 13 | 2 | – | 3.5 (5) | 2 (4) | 1.5 (3) |",
        "| LoRA r=8 | 2 | 2.5 (3) | 0 (0) | 1.5 (2) | ran away |",
    ]


def test_a_task_on_which_every_rate_scores_the_same_is_left_out(made_up: MadeUp) -> None:
    scores(made_up, LORA, {"one": {0.001: 0.7, 0.004: 0.8, 0.016: 0.7}, "two": {0.001: 0.5, 0.004: 0.5, 0.016: 0.5}})
    made_up.add("two", LORA, 2.5e-4, 0, 0.5)
    made_up.add("two", LORA, 0.001, 1, 0.5)
    known = list(cells(made_up.plan, made_up.results))
    assert next(cell for cell in known if (cell.task, cell.label) == ("two", LORA)).best is not None
    assert [(one.tasks, round(one.mean, 6)) for one in at_rates(known)] == [(1, 10), (1, 0), (1, 10)]


def test_searches_that_are_under_way_or_fixed_say_nothing(made_up: MadeUp) -> None:
    scores(made_up, LORA, {"one": {0.001: 0.75, 0.004: 0.74}, "two": {0.001: 0.7, 0.004: 0.8, 0.016: 0.75}})
    [*found] = at_rates(list(cells(made_up.plan, made_up.results)))
    assert {one.tasks for one in found} == {1}  # the search on the first task is not over
    assert [(one.rate, one.mean) for one in found] == [
        (0.001, pytest.approx(10)), (0.004, 0), (0.016, pytest.approx(5)),
    ]  # fmt: skip
    content = {key: value for key, value in made_up.content.items() if key != "rates"} | {
        "rates": [0.004],
        "further_rates": 0,
    }
    made_up.folder.joinpath("fixed").mkdir()
    fixed = MadeUp(made_up.folder / "fixed", **content)
    scores(fixed, LORA, {"one": {0.004: 0.74}})
    assert at_rates(list(cells(fixed.plan, fixed.results))) == []


def test_of_losses_less_is_better_and_units_are_not_mixed() -> None:
    accuracy, loss = (
        Metric("accuracy", "accuracy", percent=True, range=(0, 1)),
        Metric("loss", "loss", greater_is_better=False),
    )

    def tried(task: str, metric: Metric, found: dict[float, float]) -> Cell:
        points = [Try(Point(rate), score) for rate, score in found.items()]
        return Cell(task, LORA, metric, [], [], points, False, Point(0.1), 0, None, study_seeds=[0], fixed=False)

    one, two = tried("one", accuracy, {0.1: 0.7, 0.2: 0.6}), tried("two", loss, {0.1: 1.5, 0.2: 1.25})
    assert [(at.rate, at.mean) for at in at_rates([two])] == [(0.1, 0.25), (0.2, 0)]
    assert [(at.rate, at.mean) for at in at_rates([one])] == [(0.1, 0), (0.2, pytest.approx(10))]
    assert at_rates([one, two]) == []
