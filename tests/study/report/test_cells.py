"""How far a method is on a task."""

from __future__ import annotations

from pathlib import Path

from structune.study.report.cells import Cell, cells, said
from structune.study.report.doubts import doubts
from structune.study.report.optimum import optimum
from structune.study.results.counted import summaries
from structune.study.search.points import Point, RangeSection, SearchSection
from structune.study.search.sampled import sampled

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
    assert [(one.point, one.score) for one in found.tries] == [
        (Point(0.001), 0.7), (Point(0.004), 0.8), (Point(0.016), None)
    ]  # fmt: skip
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


def test_a_seed_whose_numbers_ran_away_is_done_and_told(whole: MadeUp) -> None:
    whole.add("one", "pool 13", 0.004, 2, None)
    found = cell(whole, "pool 13")
    assert (found.done, found.runs_left, found.seeds_left, found.ran_away) == (True, 0, [], [2])
    assert found.state() == "2 seeds scored; ran away with others"
    (said,) = doubts(whole.plan, list(cells(whole.plan, whole.results)), whole.results)
    assert said.startswith("pool 13 on one: numbers ran away at 0.004 with seed 2; its mean")


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


def left_out(study: MadeUp) -> list[str]:
    return list(doubts(study.plan, list(cells(study.plan, study.results)), study.results))


def test_seeds_and_rates_that_the_file_has_no_longer_do_not_count(tmp_path: Path) -> None:
    study = MadeUp(tmp_path, seeds=[0, 1], rates=[0.001, 0.002, 0.004])
    for rate, score in ((0.001, 0.5), (0.002, 0.7), (0.004, 0.6)):
        study.add("one", "LoRA r=8", rate, 0, score, 0.71 if rate == 0.002 else None)
    assert left_out(study) == []
    for seed in (0, 1, 7):
        study.add("one", "LoRA r=8", 0.016, seed, 0.9, 0.9)
    study.add("one", "LoRA r=8", 0.002, 7, 0.7, 0.99)
    found = cell(study)
    assert (found.point, found.best, found.seeds) == (Point(0.002), Point(0.002), {0: 0.71})
    assert found.state() == "1 of 2 seeds scored"
    assert len(found.tries) == len(found.runs) == 3
    (row,) = summaries(study.plan, study.results)
    assert (row["rate"], row["seeds"], row["test"]) == (0.002, [0], [0.71])
    (told,) = left_out(study)
    assert told.startswith("4 results are of seeds, rates or tries that the study's file does not ask for")
    assert "LoRA r=8 on one at 0.016, seed 7" in told


def test_what_the_search_chose_counts_where_other_scores_are_level(made_up: MadeUp) -> None:
    """The first of the file's rates is chosen then, and not the least that was tried."""
    for rate in (0.00025, 0.001, 0.004, 0.016):
        made_up.add("one", "LoRA r=8", rate, 0, 0.5, 0.5 if rate <= 0.001 else None)
    assert (cell(made_up).best, cell(made_up).point) == (Point(0.001), Point(0.001))


def test_rates_of_a_ladder_are_no_tries_of_a_search_that_draws(tmp_path: Path) -> None:
    study = MadeUp(tmp_path, search={"trials": 2})
    for rate, score in ((0.001, 0.5), (0.004, 0.7), (0.016, 0.6)):
        study.add("one", "LoRA r=8", rate, 0, score, score if rate == 0.004 else None)
    found = cell(study)
    assert (found.tries, found.tries_left, found.best, found.point) == ([], 2, None, None)
    assert list(summaries(study.plan, study.results)) == []
    for number, rate in ((0, 0.002), (7, 0.003), (1, 0.5)):  # the second is beyond `trials`, the third out of the range
        study.add("one", "LoRA r=8", rate, 0, 0.9, **{"try": number, "tried": {}})
    found = cell(study)
    assert ([one.point for one in found.tries], found.tries_left, found.best) == ([Point(0.002)], 1, None)
    assert "5 results are of seeds, rates or tries" in left_out(study)[0]


def test_tries_that_were_drawn_are_none_of_a_ladder_but_at_its_rates(tmp_path: Path) -> None:
    study = MadeUp(tmp_path)
    study.add("one", "LoRA r=8", 0.001, 0, 0.5, **{"try": 0, "tried": {}})
    study.add("one", "LoRA r=8", 0.004, 0, 0.9, 0.9, **{"try": 1, "tried": {"method.alpha": 4}})
    assert (cell(study).state(), cell(study).point) == ("1 of 3 rates tried", None)


def test_a_fixed_rate_over_an_old_search(tmp_path: Path) -> None:
    method = {"label": "LoRA", "method": {"name": "lora"}, "fixed_rates": {"one": 0.1}}
    study = MadeUp(tmp_path, methods=[method])
    for rate, score in ((0.001, 0.5), (0.004, 0.7), (0.016, 0.6)):
        study.add("one", "LoRA", rate, 0, score, score if rate == 0.004 else None)
    assert (cell(study, "LoRA").state(), cell(study, "LoRA").point) == ("not begun", None)
    study.add("one", "LoRA", 0.1, 0, 0.4, 0.4)
    found = cell(study, "LoRA")
    assert (found.point, found.state()) == (Point(0.1), "1 of 3 seeds scored")
    assert optimum(found.tries, found.metric, found.fixed).where == "fixed"


def test_of_equal_tries_the_search_and_its_report_choose_the_same(tmp_path: Path) -> None:
    ranges = {"method.alpha": {"choices": [32, 4]}}
    study = MadeUp(tmp_path, rates=[0.01], search={"trials": 2, "ranges": ranges})
    points = [Point(0.01, (("method.alpha", alpha),)) for alpha in (32, 4)]
    for number, (point, scored) in enumerate(zip(points, (0.9, None), strict=True)):
        more = {"try": number, "tried": dict(point.more)}
        study.add("one", "LoRA r=8", 0.01, 0, 0.8, scored, **more)
    section = SearchSection(sampler="grid", trials=2, ranges={"method.alpha": RangeSection(choices=[32, 4])})
    space = study.plan.spaces()["LoRA r=8", "one"]
    chosen = sampled(space, section, {number: (point, 0.8) for number, point in enumerate(points)}).best
    found = cell(study)
    assert chosen == found.best == found.point == points[0]
    assert found.state() == "1 of 3 seeds scored"
    for seed in (1, 2):
        study.add("one", "LoRA r=8", 0.01, seed, 0.8, 0.9, **{"try": 0, "tried": dict(points[0].more)})
    assert cell(study).done
