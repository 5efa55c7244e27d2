"""Searches whose tries are drawn: what is tried follows from the results alone, whoever goes on."""

from __future__ import annotations

import builtins
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from structune.errors import Interrupted, UserError
from structune.study import engine as engines
from structune.study import runner as runners
from structune.study.engine import run_study
from structune.study.results.counted import summaries
from structune.study.results.files import Results
from structune.study.search.points import Point, RangeSection, SearchSection, Space
from structune.study.search.rates import RAN_AWAY
from structune.study.search.sampled import sampled
from structune.study.study_file import Study
from structune.study.workers import processes as workers
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome

from ..in_turn import InTurn

SPACE = {
    "rate": RangeSection(low=1e-4, high=1.0, log=True),
    "method.alpha": RangeSection(low=1, high=16),
    "train.weight_decay": RangeSection(low=0.0, high=0.5),
}
OPTIMUM = Point(1e-2, (("method.alpha", 8), ("train.weight_decay", 0.2)))


def distance(point: Point) -> float:
    """0 at the optimum and about 1 at the ends of each range."""
    more, best = dict(point.more), dict(OPTIMUM.more)
    return math.hypot(
        math.log10(point.rate / OPTIMUM.rate) / 2,
        (more["method.alpha"] - best["method.alpha"]) / 8,
        (more["train.weight_decay"] - best["train.weight_decay"]) / 0.3,
    )


Scores = dict[int, tuple[Point, float]]


def carried(
    section: SearchSection, score: Callable[[Point], float], space: Space = SPACE, greater_is_better: bool = True
) -> tuple[Scores, Point | None]:
    """Every try, one after the other, and what is found."""
    scores: Scores = {}
    while (found := sampled(space, section, scores, greater_is_better)).missing:
        assert found.best is None
        assert len(scores) + len(found.missing) + found.later == section.trials
        scores |= {number: (point, score(point)) for number, point in found.missing.items()}
    return scores, found.best


@pytest.mark.parametrize(("sampler", "trials", "near"), [("tpe", 60, 0.25), ("gp", 10, 0.6), ("random", 200, 0.35)])
def test_a_known_optimum_is_found(sampler: str, trials: int, near: float) -> None:
    pytest.importorskip("optuna")
    section = SearchSection(sampler=sampler, trials=trials)  # type: ignore[arg-type]
    scores, best = carried(section, lambda point: -distance(point))
    assert len({point for point, _ in scores.values()}) == len(scores) == trials
    assert best == min((point for point, _ in scores.values()), key=distance)
    assert distance(best) < near
    assert all(space.has(value) for point, _ in scores.values()
               for space, value in zip(SPACE.values(), point.values().values(), strict=True))  # fmt: skip
    assert all(float(f"{value:.3g}") == value for point, _ in scores.values() for value in point.values().values())


def test_tpe_learns_from_scores_and_goes_where_less_is_better() -> None:
    pytest.importorskip("optuna")
    section = SearchSection(trials=40)
    scores, best = carried(section, distance, greater_is_better=False)
    assert best is not None
    late = [distance(point) for number, (point, _) in scores.items() if number >= 20]
    blind = [distance(point) for point, _ in carried(section, lambda point: 0.5)[0].values()]
    assert sum(late) / len(late) < 0.7 * sum(blind) / len(blind)
    assert best == min((point for point, _ in scores.values()), key=distance)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_next_try_follows_from_the_results_alone(sampler: str) -> None:
    """After any number of them, in whatever order they came, and with other seeds it is another."""
    pytest.importorskip("optuna")
    section = SearchSection(sampler=sampler, trials=12, seed=3)  # type: ignore[arg-type]
    whole, _ = carried(section, lambda point: -distance(point))
    for done in range(12):
        some = {number: whole[number] for number in reversed(range(done))}
        found = sampled(SPACE, section, some)
        assert found.missing.items() <= {number: point for number, (point, _) in whole.items()}.items()
        assert min(found.missing) == done
    gap = {number: scored for number, scored in whole.items() if number != 1}
    assert sampled(SPACE, section, gap).missing == {1: whole[1][0]}
    other = sampled(SPACE, section.model_copy(update={"seed": 4}), {}).missing
    assert not {point for point, _ in whole.values()} & set(other.values())
    more = sampled(SPACE, section.model_copy(update={"trials": 13}), whole)
    assert more.missing.keys() == {12}


def test_where_numbers_ran_away_is_the_worst() -> None:
    pytest.importorskip("optuna")
    section = SearchSection(trials=30)
    space = {"rate": SPACE["rate"]}

    def score(point: Point) -> float:
        return RAN_AWAY if point.rate > 0.01 else -abs(math.log10(point.rate) + 3)

    scores, best = carried(section, score, space)
    assert best == max((point for point, value in scores.values() if not math.isnan(value)), key=score)
    late = [point.rate > 0.01 for number, (point, _) in scores.items() if number >= 10]
    assert sum(late) < len(late) / 3  # half of the range ran away
    assert carried(SearchSection(trials=5), lambda point: RAN_AWAY, space)[1] is None


def test_nothing_is_tried_twice_where_there_is_little() -> None:
    pytest.importorskip("optuna")
    space = {"rate": RangeSection(choices=[0.1]), "method.alpha": RangeSection(choices=[1, 2, 4])}
    section, scores = SearchSection(trials=8), {}
    while (found := sampled(space, section, scores)).missing:
        scores |= {number: (point, float(point.values()["method.alpha"])) for number, point in found.missing.items()}
    assert sorted(point.values()["method.alpha"] for point, _ in scores.values()) == [1, 2, 4]
    assert found.best == Point(0.1, (("method.alpha", 4),))


def test_a_grid_has_every_point_and_needs_no_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError
        return imported(name, *rest)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    space = {"rate": RangeSection(choices=[0.01, 0.1]), "train.weight_decay": RangeSection(low=0.0, high=0.3, step=0.1)}
    found = sampled(space, SearchSection(sampler="grid", trials=8), {})
    values = [(point.rate, point.values()["train.weight_decay"]) for point in found.missing.values()]
    assert values == [(rate, decay) for rate in (0.01, 0.1) for decay in (0.0, 0.1, 0.2, 0.3)]
    with pytest.raises(UserError, match=r"search.sampler = 'tpe': needs Optuna; `pip install 'structune\[study\]'`"):
        sampled(space, SearchSection(trials=8), {})


def test_what_another_search_tried_is_not_inside() -> None:
    space = {"rate": RangeSection(low=1e-3, high=1e-1, log=True), "method.alpha": RangeSection(choices=[8, 16])}
    assert Point(0.01, (("method.alpha", 8),)).inside(space)
    assert not Point(0.01).inside(space)
    assert not Point(0.01, (("method.alpha", 8), ("train.weight_decay", 0.1))).inside(space)
    assert not Point(0.01, (("method.alpha", 4),)).inside(space)
    assert not Point(0.5, (("method.alpha", 8),)).inside(space)


@pytest.fixture
def content(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    rows = "".join(f"a {word} film {n},{word}\n" for n in range(20) for word in ("good", "bad"))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    data = {"train": str(tmp_path / "films.csv"), "evaluation_examples": 10}
    return {
        "name": "tiny",
        "seeds": [3, 4],
        "rates": [1e-4, 1e-1],
        "search": {
            "trials": 6,
            "ranges": {
                "train.head_learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
                "method.alpha": {"low": 1, "high": 16},
            },
        },
        "model": {"name": str(tiny_model)},
        "tasks": {"films": {"data": data, "validation_examples": 10, "train": {"max_steps": 2, "device": "cpu"}}},
        "methods": [
            {"label": "LoRA", "method": {"name": "lora", "rank": 1}},
            {"label": "C3A", "method": {"name": "c3a", "block_size": 8}, "rates": [1e-2, 10.0]},
            {"label": "head", "method": {"name": "head"}},
        ],
    }


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Runs are made up, with scores that follow from what is tried; the list tells which were run."""
    run: list[Job] = []

    def made_up(job: Job) -> Outcome:
        run.append(job)
        return Outcome("finished", test=None if job.test is None else {"accuracy": 0.5})

    def measured(recipe: Any, _: Any) -> dict[str, Any]:
        rates = [rate for rate in (recipe.train.learning_rate, recipe.train.head_learning_rate) if rate is not None]
        score = -sum(abs(math.log10(rate) + 2) for rate in rates)
        return {"validation": {"accuracy": score}, "trainable_adapter": 1}

    monkeypatch.setattr(workers, "carry_out", made_up)
    monkeypatch.setattr(runners, "measured", measured)
    monkeypatch.setattr(engines, "Workers", InTurn)
    return run


def study(content: dict[str, Any], folder: Path) -> Study:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    return Study.load(folder / "tiny.yaml")


def points(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What was tried of each method, by number."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for result in sorted((r for r in Results(folder).all() if r["seed"] == 3), key=lambda r: r["try"]):
        found.setdefault(result["method"], []).append((result["rate"], *result["tried"].values()))
    return found


def test_every_method_has_as_many_tries_and_the_best_is_scored(
    content: dict[str, Any], tmp_path: Path, jobs: list[Job]
) -> None:
    pytest.importorskip("optuna")
    plan, results = study(content, tmp_path), Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work")
    tried = points(tmp_path / "results")
    assert {method: len(each) for method, each in tried.items()} == {"LoRA": 6, "C3A": 6, "head": 6}
    assert {method: {len(point) for point in each} for method, each in tried.items()} == {
        "LoRA": {3}, "C3A": {2}, "head": {1},  # C3A has no alpha, and of the head alone the rate is the head's
    }  # fmt: skip
    assert all(1e-2 <= rate <= 10 for rate, *_ in tried["C3A"])
    names = [job.run.folder.name for job in jobs]
    assert len(names) == 3 * (6 + 2)  # the other seed, and the test score of the first
    assert re.fullmatch(r"LoRA-lr=[0-9.e-]+-alpha=\d+-head-learning-rate=[0-9.e-]+-seed=3", names[0])
    for row in summaries(plan, results):
        mine = [r for r in results.all() if r["method"] == row["method"] and r["seed"] == 3]
        best = max(mine, key=lambda r: r["validation"]["accuracy"])
        assert (row["rate"], row["tried"], row["seeds"]) == (best["rate"], best["tried"], [3, 4])
    lora = next(job.recipe for job in jobs if job.run.folder.name.startswith("LoRA"))
    assert (lora.train.learning_rate, lora.method.alpha, lora.train.head_learning_rate) == tried["LoRA"][0]  # type: ignore[attr-defined]


def test_a_dry_run_says_what_waits_for_scores(content: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    plan, screen = study(content, tmp_path), Console(file=io.StringIO(), width=200)
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work", dry_run=True, timing=False, console=screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert said.count("  seed 3  train\n") == 3 * 3
    assert "films  head  then 3 more tries, the best one's test score, seed 4\n" in said
    assert "24 left" in said


def test_a_stopped_search_goes_on_with_the_same_tries(
    content: dict[str, Any], tmp_path: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    plan, run = study(content, tmp_path), workers.carry_out
    run_study(plan, Results(tmp_path / "whole"), tmp_path / "work")
    for stop in (1, 4, 5, 9):
        jobs.clear()
        broken = Results(tmp_path / f"broken-{stop}")

        def stopping(job: Job, stop: int = stop) -> Outcome:
            return run(job) if len(jobs) < stop else Outcome("interrupted", step=1)

        monkeypatch.setattr(workers, "carry_out", stopping)
        with pytest.raises(Interrupted):
            run_study(plan, broken, tmp_path / "work")
        monkeypatch.setattr(workers, "carry_out", run)
        run_study(plan, broken, tmp_path / "work")
        assert len(jobs) == 24  # nothing twice
        assert points(broken.folder) == points(tmp_path / "whole")


def test_tries_of_another_version_count(content: dict[str, Any], tmp_path: Path, jobs: list[Job]) -> None:
    """What was tried is told by its number, also where it would not be drawn like that here."""
    pytest.importorskip("optuna")
    plan, results = study(content, tmp_path), Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="C3A")
    first = next(r for r in results.all() if r["try"] == 0)
    (file,) = results.folder.glob(f"films/C3A-lr={first['rate']:.3g}-*seed=3.json")
    moved = first | {"rate": 0.125, "test": None}
    moved["settings"]["train"]["learning_rate"] = 0.125
    new = file.with_name(file.name.replace(f"lr={first['rate']:.3g}", "lr=0.125"))
    file.unlink()
    new.write_text(json.dumps(moved))
    for other in results.folder.glob("films/*.json"):
        if json.loads(other.read_text())["try"] > 2:
            other.unlink()
    run_study(plan, results, tmp_path / "work", only="C3A", first_seed_only=True)
    again = points(results.folder)["C3A"]
    assert again[0][0] == 0.125
    assert len(again) == 6


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"trials": 2, "ranges": {"train.learning_rate": {"low": 1e-3, "high": 1e-2}}}, "between the ends of `rates`"),
        ({"trials": 2, "ranges": {"alpha": {"low": 1, "high": 2}}}, "train.KEY or method.KEY"),
        ({"trials": 2, "ranges": {"method.alhpa": {"low": 1, "high": 2}}}, "method.alhpa: no method of the study has"),
        ({"trials": 2, "ranges": {"train.epochs": {"low": -1, "high": 2}}}, "epochs"),
        ({"trials": 2, "ranges": {"train.weight_decay": {"low": 0.1234, "high": 2}}}, "has more than 3 digits"),
        ({"trials": 2, "ranges": {"train.weight_decay": {"low": 2, "high": 1}}}, "low = 2 is not below high = 1"),
        ({"trials": 2, "ranges": {"train.weight_decay": {"low": 0, "high": 1, "log": True}}}, "a low above 0"),
        ({"trials": 2, "ranges": {"train.weight_decay": {"low": 0}}}, "give low and high, or choices"),
        ({"trials": 2, "ranges": {"train.weight_decay": {"choices": [0], "low": 0}}}, "choices stand alone"),
        ({"trials": 0}, "search.trials"),
        ({"trials": 2, "sampler": "anneal"}, "search.sampler"),
    ],
)
def test_mistakes_in_the_section(content: dict[str, Any], tmp_path: Path, search: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        study(content | {"search": search}, tmp_path)


def test_a_grid_says_how_many_points_it_has(content: dict[str, Any], tmp_path: Path, jobs: list[Job]) -> None:
    section = {"sampler": "grid", "trials": 5, "ranges": {"train.weight_decay": {"choices": [0.0, 0.1]}}}
    with pytest.raises(UserError, match="search.trials = 5: the grid has 4 points; give trials: 4"):
        run_study(study(content | {"search": section}, tmp_path), Results(tmp_path / "results"), tmp_path / "work")
    plan, results = study(content | {"search": section | {"trials": 4}}, tmp_path), Results(tmp_path / "results")
    for _ in range(2):
        run_study(plan, results, tmp_path / "work", only="LoRA", first_seed_only=True)
        assert len(jobs) == 4 + 1
    section["ranges"]["train.weight_decay"] = {"low": 0.0, "high": 0.1}  # type: ignore[index]
    with pytest.raises(UserError, match="search.ranges.train.weight_decay: a grid wants choices, or a step"):
        run_study(study(content | {"search": section}, tmp_path), results, tmp_path / "work")
