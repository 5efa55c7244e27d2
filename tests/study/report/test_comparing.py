"""Optima, comparisons with a reference, and ranks, of made-up scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from structune.study.report import findings
from structune.study.report.against import AHEAD, BEHIND, NO_DIFFERENCE, NOT_TESTED, Against, against
from structune.study.report.cells import Cell
from structune.study.report.optimum import optimum
from structune.study.report.ranks import ranked
from structune.study.report.reference import reference_label
from structune.study.search.points import Point
from structune.study.search.tries import Try
from structune.tasks.task import Metric

from .conftest import MadeUp

ACCURACY = Metric("accuracy", "accuracy", percent=True, range=(0, 1))
LOSS = Metric("loss", "loss", greater_is_better=False)
MATTHEWS = Metric("matthews", "Matthews correlation", range=(-1, 1))


def cell(task: str, label: str, scores: Sequence[float], metric: Metric = ACCURACY) -> Cell:
    runs = [{"rate": 0.1, "seed": seed, "test": {metric.key: score}} for seed, score in enumerate(scores)]
    seeds = list(range(len(scores)))
    return Cell(task, label, metric, runs, [], [], False, Point(0.1), 0, Point(0.1), study_seeds=seeds, fixed=False)


def tries(scores: Mapping[float, float | None]) -> list[Try]:
    return [Try(Point(rate), score) for rate, score in scores.items()]


def compared(scores: Mapping[tuple[str, str], Sequence[float]], metrics: Mapping[str, Metric] | None = None) -> Against:
    metrics = metrics or {}
    return against([cell(t, m, values, metrics.get(t, ACCURACY)) for (t, m), values in scores.items()], "LoRA")


@pytest.mark.parametrize(
    ("tried", "rate", "said"),
    [
        ({}, None, "No rate was tried yet."),
        ({1e-3: 0.5}, 1e-3, "Only 0.001 was tried so far."),
        ({1e-3: None}, None, "Numbers ran away at every rate that was tried."),
        ({1e-3: 0.5, 4e-3: 0.7, 16e-3: 0.6}, 4e-3, "0.004 is best, inside the rates that were tried."),
        ({1e-3: 0.5, 4e-3: 0.7}, 4e-3, "0.004 is best, the largest that was tried: a larger one may be better."),
        ({1e-3: 0.8, 4e-3: 0.7}, 1e-3, "0.001 is best, the smallest that was tried: a smaller one may be better."),
        ({1e-3: 0.8, 4e-3: 0.8}, 1e-3, "All rates that were tried score the same: none of them changes anything, or "
                                       "all break it."),
        ({1e-3: 0.5, 4e-3: 0.7, 16e-3: None}, 4e-3, "0.004 is best, inside the rates that were tried. "
                                                   "Numbers ran away at 0.016."),
        ({1e-3: 0.5, 4e-3: None}, 1e-3, "0.001 is best, the smallest that was tried: a smaller one may be better. "
                                        "Numbers ran away at 0.004."),
    ],
)  # fmt: skip
def test_where_the_best_rate_lies_is_said(tried: dict[float, float | None], rate: float | None, said: str) -> None:
    found = optimum(tries(tried), ACCURACY)
    assert (found.rate, found.said()) == ("" if rate is None else f"{rate:.3g}", said)
    assert found.sure == ("inside" in said)


def test_of_losses_the_least_is_best_and_fixed_rates_are_no_search() -> None:
    assert (
        optimum(tries({1e-3: 0.5, 4e-3: 0.3, 16e-3: 0.6}), LOSS).said()
        == "0.004 is best, inside the rates that were tried."
    )
    assert (
        optimum(tries({1e-3: 0.5}), LOSS, fixed=True).said()
        == "0.001 is what the study's file says; nothing was searched."
    )
    assert optimum(tries({1e-3: 0.5, 4e-3: 0.3, 16e-3: 0.6}), LOSS, fixed=True).where == "fixed"


def test_p_values_are_scipy_s_corrected_for_all_of_them() -> None:
    rng = np.random.default_rng(0)
    lora, near, far = rng.normal(0.8, 0.01, 5), rng.normal(0.81, 0.01, 5), rng.normal(0.7, 0.01, 5)
    found = compared({("a", "near"): near, ("a", "LoRA"): lora, ("a", "far"): far})
    assert [one.label for one in found.each] == ["near", "far"]
    p = {"near": stats.ttest_rel(near, lora).pvalue, "far": stats.ttest_rel(far, lora).pvalue}
    assert p["far"] < p["near"]
    assert {one.label: one.p for one in found.each} == pytest.approx({"near": p["near"], "far": 2 * p["far"]})
    assert {one.label: one.verdict for one in found.each}["far"] == BEHIND
    assert found.overall == []  # one task


def test_over_tasks_every_task_counts_alike_and_pairs_are_those_in_common() -> None:
    found = compared(
        {
            ("a", "LoRA"): [0.5, 0.6, 0.7, 0.8], ("a", "x"): [0.61, 0.70, 0.81],
            ("b", "LoRA"): [0.2, 0.3, 0.4], ("b", "x"): [0.41, 0.50, 0.58],
            ("c", "x"): [0.9, 0.9, 0.9],
        }
    )  # fmt: skip
    (overall,) = found.overall
    assert overall.tasks == ["a", "b"]  # the reference has no score on c
    assert overall.gain.pairs == 6
    assert overall.gain.mean == pytest.approx((np.mean([0.11, 0.10, 0.11]) + np.mean([0.21, 0.20, 0.18])) / 2)
    assert (overall.verdict, overall.shown()) == (AHEAD, "+15.2")


def test_a_task_with_one_seed_does_not_keep_the_others_from_being_tested() -> None:
    scores = {
        ("a", "LoRA"): [0.5, 0.6, 0.7], ("a", "x"): [0.61, 0.70, 0.81],
        ("b", "LoRA"): [0.2, 0.3, 0.4], ("b", "x"): [0.41, 0.50, 0.58],
        ("c", "LoRA"): [0.9], ("c", "x"): [0.1],
    }  # fmt: skip
    (overall,) = compared(scores).overall
    assert (overall.tasks, overall.verdict, overall.shown()) == (["a", "b"], AHEAD, "+15.2")
    (overall,) = compared({name: few[:1] for name, few in scores.items()}).overall
    assert (overall.tasks, overall.verdict) == (["a", "b", "c"], NOT_TESTED)


def test_less_is_better_of_losses_and_units_are_not_mixed() -> None:
    scores = {
        ("a", "LoRA"): [0.5, 0.6, 0.7], ("a", "x"): [0.51, 0.60, 0.73],
        ("b", "LoRA"): [2.0, 2.1, 2.2], ("b", "x"): [1.0, 1.11, 1.19],
    }  # fmt: skip
    found = compared(scores, {"b": LOSS})
    assert {one.tasks[0]: one.verdict for one in found.each} == {"a": NO_DIFFERENCE, "b": AHEAD}
    assert found.each[1].gain.mean == pytest.approx(1.0)
    assert found.overall == []
    assert "different units" in found.why_not_overall
    assert len(compared(scores, {"b": MATTHEWS}).overall) == 1  # times a hundred, both


def test_what_cannot_be_tested_is_not_corrected_for() -> None:
    found = compared({("a", "LoRA"): [0.5, 0.6, 0.7], ("a", "one"): [0.9], ("a", "x"): [0.51, 0.60, 0.73]})
    one, x = found.each
    assert (one.verdict, one.said(), one.shown()) == (NOT_TESTED, "not tested: one seed in common", "+40.0")
    assert x.p == pytest.approx(stats.ttest_rel([0.51, 0.60, 0.73], [0.5, 0.6, 0.7]).pvalue)


def test_studies_without_any_difference_seldom_show_one() -> None:
    """Six methods on four tasks of unequal noise, three seeds: at most one study in twenty shows any difference."""
    rng, shown = np.random.default_rng(7), []
    for _ in range(120):
        noise = rng.uniform(0.002, 0.05, (4, 7, 1))
        scores = 0.7 + noise * rng.normal(0, 1, (4, 7, 3))
        names = ["LoRA", *"uvwxyz"]
        found = compared({(f"t{t}", names[m]): scores[t, m] for t in range(4) for m in range(7)})
        shown.append([any(one.verdict in (AHEAD, BEHIND) for one in part) for part in (found.overall, found.each)])
    assert np.all(np.mean(shown, axis=0) < 0.1)  # 0.05 and two and a half standard errors


def test_ranks_that_can_be_told_apart() -> None:
    """Four methods in the same order on fifteen tasks: ranks 1, 2, 3, 4; CD = 2.569 √(20 / 90) = 1.211."""
    found = ranked([cell(f"t{t}", m, [0.9 - 0.1 * n]) for t in range(15) for n, m in enumerate("abcd")])
    assert (found.labels, found.ranks) == (list("abcd"), [1, 2, 3, 4])
    assert found.difference == pytest.approx(1.211, abs=0.001)
    assert found.groups == [(0, 1), (1, 2), (2, 3)]
    assert "By Friedman's test the methods are not all alike (p < 0.001)" in found.said


def test_ranks_of_losses_begin_with_the_least() -> None:
    found = ranked([cell(f"t{t}", m, [1.0 + n], LOSS) for t in range(15) for n, m in enumerate("abcd")])
    assert found.labels == list("abcd")


def test_no_difference_between_ranks_is_said() -> None:
    rng = np.random.default_rng(1)
    found = ranked([cell(f"t{t}", m, [rng.uniform()]) for t in range(12) for m in "abcd"])
    assert found.said.startswith("No difference shown: by Friedman's test the methods may all be alike (p = 0.")
    assert found.groups == [(0, 3)]
    same = ranked([cell(f"t{t}", m, [0.5]) for t in range(12) for m in "abcd"])
    assert "(all are equal)" in same.said


def test_incomplete_blocks_and_too_few_are_said_and_not_drawn() -> None:
    three = [cell(f"t{t}", m, [0.9 - 0.1 * n]) for t in range(15) for n, m in enumerate("abc")]
    found = ranked([*three, *(cell(f"t{t}", "gap", [0.99] if t < 5 else []) for t in range(15))])
    assert found.left_out == ["gap"]  # 3 x 15 scores against 4 x 5
    assert found.labels == list("abc") and len(found.tasks) == 15
    found = ranked([*three, *(cell(f"t{t}", "gap", [0.99] if t else []) for t in range(15))])
    assert found.left_out == ["t0"]  # 4 x 14 scores against 3 x 15
    assert found.labels == ["gap", *"abc"] and found.tasks == [f"t{t}" for t in range(1, 15)]
    gaps = [*three, *(cell(f"t{t}", m, [0.5]) for t in range(15) for m, gap in (("x", 0), ("y", 1)) if t != gap)]
    found = ranked(gaps)
    assert found.left_out == ["t0", "t1"] and len(found.labels) == 5  # on tasks that no method alone has
    unlike = [cell(f"t{t}", m, [0.5]) for t in range(10) for m, known in (("a", 10), ("b", 3), ("c", 3)) if t < known]
    found = ranked(unlike)
    assert (found.labels, len(found.tasks)) == (list("abc"), 3)  # 9 scores that can be tested before 10 of one method
    for cells, said in (
        ([c for c in three if c.label != "a"], "two methods have test scores on the same tasks"),
        ([c for c in three if c.task == "t0"], "One task is no sample of tasks"),
        ([c for c in three if c.task in ("t0", "t1")], "Too few tasks"),
        ([cell("t0", "a", []), cell("t1", "a", [])], "no method has a test score,"),
    ):
        none = ranked(cells)
        assert said in none.said
        assert not none.drawn and math.isnan(none.difference)


def test_the_reference_is_the_first_lora(tmp_path: Path) -> None:
    methods = [
        {"label": "DoRA", "method": {"name": "peft", "type": "LORA", "r": 8, "use_dora": True}},
        {"label": "LoRA r={rank}", "method": {"name": "lora", "rank": [4, 8]}},
    ]
    plan = MadeUp(tmp_path, methods=methods).plan
    assert reference_label(plan) == "LoRA r=4"
    assert reference_label(plan, "DoRA") == "DoRA"


def test_methods_that_share_the_best_score_are_all_named() -> None:
    known = [cell(task, label, [score]) for (task, label), score in {
        ("a", "x"): 0.5, ("a", "y"): 0.5, ("a", "z"): 0.5,
        ("b", "x"): 0.5, ("b", "y"): 0.75, ("b", "z"): 0.75,
        ("c", "x"): 0.75, ("c", "y"): 0.5, ("c", "z"): 0.5,
    }.items()]  # fmt: skip
    assert findings.leaders(known) == [
        "all 3 methods with a score have the best mean score on a (50.0)",
        "y and z have the best mean score on b (75.0)",
        "x has the best mean score on c (75.0)",
    ]
    assert findings.best("a", known, None) == "a: all 3 methods with a score have the best mean, 50.0 accuracy × 100"
    assert findings.leaders(known[:2]) == ["x and y have the best mean score on a (50.0)"]
    beside = against(known, "x")
    assert findings.best("b", known, beside).startswith(
        "b: y and z have the best mean, 75.0 accuracy × 100; x has 50.0"
    )
    assert findings.best("c", known, None) == "c: x has the best mean, 75.0 accuracy × 100"
    losses = [cell("a", "x", [-1.0], LOSS), cell("a", "y", [1.0], LOSS)]
    assert findings.best("a", losses, None) == "a: x has the best mean, −1.000 loss"
