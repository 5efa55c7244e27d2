"""What one rate for all tasks costs."""

from __future__ import annotations

import math

import pytest
from markupsafe import escape

from structune.study.report import findings
from structune.study.report.cells import Cell, cells
from structune.study.report.one_rate import AtRate, at_rates, common_rate
from structune.study.report.page import write_report
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
        "two": {0.001: 0.80, 0.004: 0.82, 0.016: 0.85, 0.064: 0.84},
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
        (POOL, 0.001): (2 + 5) / 2, (POOL, 0.004): (0 + 3) / 2, (POOL, 0.016): (3 + 0) / 2,
        (LORA, 2.5e-4): (2 + 3) / 2, (LORA, 0.001): 0, (LORA, 0.004): (1 + 2) / 2, (LORA, 0.016): math.inf,
    })  # fmt: skip
    assert (found[POOL, 0.004].most, found[POOL, 0.004].where) == (pytest.approx(3), "two")
    assert (found[POOL, 0.016].most, found[POOL, 0.016].where) == (pytest.approx(3), "one")
    assert found[POOL, 0.004].tasks == 2


def at(rate: float, **means: float) -> list[AtRate]:
    """Methods at a rate, with their means over two tasks."""
    return [AtRate(label, rate, 2, mean, 2 * mean, "one") for label, mean in means.items()]


def test_the_common_rate_ruins_and_costs_least_of_those_that_half_of_the_methods_have(searched: MadeUp) -> None:
    found = at_rates(list(cells(searched.plan, searched.results)))
    # All three rates have both methods; their mean costs are (3.5 + 0) / 2, (1.5 + 1.5) / 2 and infinite.
    assert [(one.label, one.rate) for one in common_rate(found)] == [(POOL, 0.004), (LORA, 0.004)]
    assert common_rate([]) == []
    assert common_rate(at(0.1, x=0) + at(0.2, x=5, y=5)) == at(0.1, x=0)
    assert common_rate(at(0.1, x=0) + at(0.2, x=5, y=5) + at(0.3, z=0)) == at(0.2, x=5, y=5)
    assert common_rate(at(0.1, x=2) + at(0.2, y=1) + at(0.3, z=3)) == at(0.2, y=1)
    ruined = at(0.1, x=math.inf, y=math.inf, z=0), at(0.2, x=1, y=1, z=math.inf)
    assert common_rate([*ruined[0], *ruined[1]]) == ruined[1]


def test_what_is_said() -> None:
    assert findings.one_rate([]) == ""
    assert findings.one_rate(at(0.1, x=2, y=1.5) + at(0.2, z=0)) == (
        "At 0.1, at which 2 of 3 methods were tried, validation scores are below the best rate's, on average over "
        "tasks, by 1.5 to 2, the most with x"
    )
    assert findings.one_rate(at(0.1, x=2, y=math.inf)).endswith("by 2; in 1 method numbers ran away")
    assert findings.one_rate(at(0.1, x=0, y=0)).endswith("by 0 to 0")
    assert findings.one_rate(at(0.1, x=math.inf)) == "At 0.1, at which 1 of 1 method was tried, numbers ran away"
    assert findings.one_rate([AtRate("x", 0.1, 1, 99.6, 99.6, "one")]) == (
        "At 0.1, at which 1 of 1 method was tried, validation scores are below the best rate's, by 100"
    )


def test_what_is_shown(searched: MadeUp, without_figures: None) -> None:
    known = at_rates(list(cells(searched.plan, searched.results)))
    table = [
        "| method | tasks | 0.00025 | 0.001 | 0.004 | 0.016 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| pool 13 | 2 | – | 3.5 (5) | 1.5 (3) | 1.5 (3) |",
        "| LoRA r=8 | 2 | 2.5 (3) | 0 (0) | 1.5 (2) | ran away |",
    ]
    assert one_rate_table(known).markdown().splitlines() == table
    page = write_report(searched.plan, searched.results, searched.folder / "out", "the command")
    heading, notes = findings.one_rate(known), findings.one_rate_notes(known)
    assert f"## {heading}" in (tables := (page.parent / "tables.md").read_text())
    assert "\n".join(table) in tables
    assert notes[0] in tables
    shown = page.read_text()
    assert f"<h3>{escape(heading)}</h3>" in shown
    assert escape(notes[0]) in shown
    assert ">3.5 (5)</td>" in shown
    assert "in brackets" not in findings.one_rate_notes([one._replace(tasks=1) for one in known])[0]


def test_rates_that_are_named_alike_are_one(made_up: MadeUp) -> None:
    near = 0.001 * (1 + 1e-9)
    scores(made_up, LORA, {"one": {0.001: 0.8, 0.004: 0.7, 0.016: 0.6, 2.5e-4: 0.7}})
    scores(made_up, POOL, {"one": {near: 0.8, 0.004: 0.7, 0.016: 0.6, 2.5e-4: 0.7}})
    found = at_rates(list(cells(made_up.plan, made_up.results)))
    assert {one.label for one in found if one.rate == 0.001} == {LORA, POOL}


def test_tries_that_are_drawn_say_nothing() -> None:
    def tried(drawn: bool) -> Cell:
        points = [Try(Point(rate), score) for rate, score in ((0.1, 0.7), (0.2, 0.6))]
        metric = Metric("accuracy", "accuracy", percent=True, range=(0, 1))
        return Cell("one", LORA, metric, [], [], points, drawn, Point(0.1), 0, None, study_seeds=[0], fixed=False)

    assert len(at_rates([tried(False)])) == 2
    assert at_rates([tried(True)]) == []


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
