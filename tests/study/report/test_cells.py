"""How far a method is on a task."""

from __future__ import annotations

from pathlib import Path

from structune.study.points import Point
from structune.study.report.cells import Cell, cells, said

from .conftest import MadeUp


def cell(study: MadeUp, label: str = "LoRA r=8", task: str = "one") -> Cell:
    return next(each for each in cells(study.plan, study.results) if (each.label, each.task) == (label, task))


def test_every_method_and_task_is_there(made_up: MadeUp) -> None:
    found = list(cells(made_up.plan, made_up.results))
    assert [(each.task, each.label) for each in found[:2]] == [("one", "pool 13"), ("one", "pool 100")]
    assert len(found) == 2 * 4
    assert {each.state() for each in found} == {"not begun"}
    assert {each.runs_left for each in found} == {3 + 2}


def test_from_the_first_rate_to_the_last_seed(made_up: MadeUp) -> None:
    states = []
    for step in (
        {"rate": 0.001, "seed": 0, "validation": 0.7},
        {"rate": 0.016, "seed": 0, "validation": None},
        {"rate": 0.004, "seed": 0, "validation": 0.8},
        {"rate": 0.004, "seed": 0, "validation": 0.8, "test": 0.81},
        {"rate": 0.004, "seed": 2, "validation": 0.8, "test": 0.83},
        {"rate": 0.004, "seed": 1, "validation": 0.8, "test": 0.82},
    ):
        made_up.add("one", "LoRA r=8", **step)
        states.append((cell(made_up).state(), cell(made_up).runs_left, cell(made_up).done))
    assert states == [
        ("1 of 3 rates tried", 2 + 2, False),
        ("2 of 3 rates tried", 1 + 2, False),
        ("0 of 3 seeds scored", 2, False),
        ("1 of 3 seeds scored", 2, False),
        ("2 of 3 seeds scored", 1, False),
        ("done", 0, True),
    ]
    found = cell(made_up)
    assert found.tries == [(Point(0.001), 0.7), (Point(0.004), 0.8), (Point(0.016), None)]
    assert found.seeds == {0: 0.81, 1: 0.82, 2: 0.83}
    assert found.score == 0.82
    assert [run["seed"] for run in found.scored] == [0, 1, 2]


def test_a_search_that_goes_on_beyond_an_end_is_not_done(made_up: MadeUp) -> None:
    for rate, score in ((0.001, 0.5), (0.004, 0.6), (0.016, 0.7)):
        made_up.add("one", "LoRA r=8", rate, 0, score)
    assert cell(made_up).state() == "3 of 4 rates tried"
    assert cell(made_up).tries_left == 1
    made_up.add("one", "LoRA r=8", 0.064, 0, 0.6)
    assert (cell(made_up).best, cell(made_up).state()) == (Point(0.016), "0 of 3 seeds scored")


def test_numbers_that_run_away_everywhere_leave_nothing_to_do(made_up: MadeUp) -> None:
    for rate in (0.001, 0.004, 0.016, 0.00025):
        made_up.add("one", "LoRA r=8", rate, 0, None)
    assert (cell(made_up).state(), cell(made_up).done, cell(made_up).runs_left) == ("ran away at all 4 rates", True, 0)


def test_scores_of_a_rate_that_is_no_longer_the_best_are_told(whole: MadeUp) -> None:
    assert cell(whole).state() == "done"
    whole.add("one", "LoRA r=8", 0.001, 0, 0.95)
    whole.add("one", "LoRA r=8", 0.00025, 0, 0.5)
    found = cell(whole)
    assert found.state() == "0.001 is best now, 3 seeds scored at 0.004"
    assert (found.done, found.seeds_left) == (False, [0, 1, 2])
    assert found.score == (0.800 + 0.801 + 0.802) / 3


def test_a_fixed_rate_is_no_search(tmp_path: Path) -> None:
    method = {"label": "LoRA", "method": {"name": "lora"}, "fixed_rates": {"one": 0.002}}
    study = MadeUp(tmp_path, methods=[method])
    study.add("one", "LoRA", 0.002, 0, 0.7, 0.7)
    assert cell(study, "LoRA").fixed
    assert cell(study, "LoRA").state() == "1 of 3 seeds scored"
    assert not cell(study, "LoRA", "two").fixed


def test_points_that_are_drawn_are_told_apart_by_all_that_was_searched(tmp_path: Path) -> None:
    ranges = {"method.alpha": {"low": 1, "high": 64}}
    study = MadeUp(tmp_path, search={"trials": 3, "ranges": ranges}, further_rates=0)
    for number, (alpha, score) in enumerate([(4, 0.6), (16, 0.9), (32, None)]):
        assert cell(study).state() == (f"{number} of 3 points tried" if number else "not begun")
        study.add("one", "LoRA r=8", 0.004, 0, score, **{"try": number, "tried": {"method.alpha": alpha}})
    found = cell(study)
    assert found.best == Point(0.004, (("method.alpha", 16),))
    assert found.state() == "0 of 3 seeds scored"
    assert [one.score for one in found.tries] == [0.6, 0.9, None]
    for seed in (0, 1):
        more = {"try": 1, "tried": {"method.alpha": 16}}
        study.add("one", "LoRA r=8", 0.004, seed, 0.9, 0.88 + seed / 100, **more)
    found = cell(study)
    assert (found.seeds, found.state()) == ({0: 0.88, 1: 0.89}, "2 of 3 seeds scored")
    assert said(found.point) == "0.004, alpha=16"
    assert {each.label: each.tries_left for each in cells(study.plan, study.results) if each.task == "one"}[
        "pool 13"
    ] == 3


def test_a_search_without_more_points_than_those_tried_is_over(tmp_path: Path) -> None:
    study = MadeUp(tmp_path, rates=[0.01], search={"trials": 9, "ranges": {"method.rank": {"choices": [1, 2]}}})
    for number, rank in enumerate((1, 2)):
        study.add("one", "LoRA r=8", 0.01, 0, 0.6 + number / 10, **{"try": number, "tried": {"method.rank": rank}})
    assert cell(study).state() == "0 of 3 seeds scored"
