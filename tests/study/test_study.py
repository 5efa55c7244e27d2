"""Studies: what is run, chosen and scored, and that a stopped one goes on."""

from __future__ import annotations

import json
import multiprocessing.forkserver
import os
import re
import shutil
import signal
import threading
import warnings
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from structune.doubt import DataWarning
from structune.errors import Interrupted, UserError
from structune.finetune import evaluate as evaluating
from structune.finetune import training
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.study import dry_run
from structune.study import engine as module
from structune.study.engine import run_study
from structune.study.inputs import hashes
from structune.study.inputs.base_model import base_model
from structune.study.pair import Pair
from structune.study.report.figures.study_figure import draw
from structune.study.report.summary_table import put_into, table
from structune.study.results.counted import summaries
from structune.study.results.files import Results, settings
from structune.study.runner import Runner
from structune.study.search.rates import RAN_AWAY, Rates, search
from structune.study.study_file import Study
from structune.study.workers import processes as workers
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome
from structune.tasks.parts.model_section import ModelSection

from .in_turn import InTurn
from .seen import scores, wait_until

STUDIES = sorted(path.stem for path in (Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.fixture
def plan(content: dict[str, Any], tmp_path: Path) -> Study:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return Study.load(tmp_path / "tiny.yaml")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs take place in this process; the list tells which were trained."""
    names: list[str] = []
    carry_out = workers.carry_out

    def carried_out(job: Job) -> Outcome:
        if job.run.state() != "finished":
            names.append(job.run.folder.name)
        return carry_out(job)

    monkeypatch.setattr(workers, "carry_out", carried_out)
    monkeypatch.setattr(module, "Workers", InTurn)
    return names


def test_the_rate_is_searched_once_and_its_choice_scored(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="LoRA")
    found = results.all()
    assert sorted(trained) == sorted(f"LoRA-r={r['method'][-1]}-lr={r['rate']:.3g}-seed={r['seed']}" for r in found)
    assert len(trained) == 2 * (2 + 1)  # two rates with the first seed, the better one with the other
    for rank in (1, 2):
        own = [r for r in found if r["method"] == f"LoRA r={rank}"]
        scores = {r["rate"]: r["validation"]["accuracy"] for r in own if r["seed"] == 3}
        best = max(scores, key=lambda rate: (scores[rate], -rate))
        assert {(r["rate"], r["seed"]) for r in own if r["test"]} == {(best, 3), (best, 4)}
        assert all(r["trainable_adapter"] == 4 * rank * 64 for r in own)
        assert all(date.fromisoformat(r["date"]) <= datetime.now(timezone.utc).date() for r in own)
    for row in summaries(plan, results):
        assert row["seeds"] == [3, 4]
        assert len(row["test"]) == 2


def test_every_method_has_one_seed_before_any_has_the_next(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work")
    first = [name for name in trained if name.endswith("seed=3")]
    assert trained[: len(first)] == first
    assert {name.split("-lr")[0] for name in first} == {name.split("-lr")[0] for name in trained[len(first) :]}
    assert len(trained) == 3 * (2 + 1)


def test_the_parts_have_no_text_in_common_and_the_test_part_is_the_data_s_own(
    plan: Study, tmp_path: Path, trained: list[str]
) -> None:
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="pool", first_seed_only=True)
    parts = {
        part: set((tmp_path / "work" / "data" / "films" / f"{part}.csv").read_text().splitlines()[1:])
        for part in ("train", "validation", "test")
    }
    assert {part: len(lines) for part, lines in parts.items()} == {"train": 60, "validation": 20, "test": 40}
    assert len(set.union(*parts.values())) == 120
    result = Results(tmp_path / "results").all()[0]
    assert (result["train_examples"], result["eval_examples"], result["test"]["examples"]) == (60, 20, 40)


def test_a_stopped_study_goes_on(
    plan: Study, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, run = Results(tmp_path / "results"), workers.carry_out

    def stopping(job: Job) -> Outcome:
        return run(job) if len(trained) < 2 else Outcome("interrupted", step=1)

    monkeypatch.setattr(workers, "carry_out", stopping)
    with pytest.raises(Interrupted, match="the same command goes on"):
        run_study(plan, results, tmp_path / "work")
    before = {file: file.read_bytes() for file in results.folder.glob("*/*.json")}
    assert len(before) == 2
    monkeypatch.setattr(workers, "carry_out", run)
    run_study(plan, results, tmp_path / "work")
    assert len(trained) == len(set(trained)) == 9
    assert all(json.loads(content)["validation"] == json.loads(file.read_text())["validation"]
               for file, content in before.items())  # fmt: skip
    count = len(trained)
    run_study(plan, results, tmp_path / "other")
    assert len(trained) == count  # everything is there, also without the runs' folders


def test_numbers_that_run_away_are_the_worst(
    plan: Study, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workers.carry_out

    def diverging(job: Job) -> Outcome:
        return Outcome("diverged", "why") if job.recipe.train.learning_rate == 0.04 else run(job)

    monkeypatch.setattr(workers, "carry_out", diverging)
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    assert {r["rate"]: r["validation"] is None for r in results.all()} == {0.01: False, 0.04: True}
    assert [row["rate"] for row in summaries(plan, results)] == [0.01]


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_run_that_failed_is_told_and_the_others_are_done(
    plan: Study, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, screen: Console, where: str
) -> None:
    """No rate is chosen without it, and the same command tries it again, and it alone."""
    results, run, scored = Results(tmp_path / "results"), workers.carry_out, evaluating.evaluate
    failing = [True]
    plan = plan if where == "train" else plan.model_copy(update={"seeds": [3]})

    def train_or_fail(job: Job) -> Outcome:
        if failing[0] and where == "train" and job.run.folder.name == "LoRA-r=1-lr=0.01-seed=3":
            trained.append("failed")
            return Outcome("failed", "not enough memory")
        return run(job)

    def score_or_fail(folder: Path, data: Path) -> Any:
        if failing[0] and where == "test" and "LoRA-r=1-" in folder.name:
            raise RuntimeError("not enough memory")
        return scored(folder, data)

    monkeypatch.setattr(workers, "carry_out", train_or_fail)
    monkeypatch.setattr(evaluating, "evaluate", score_or_fail)
    with pytest.raises(
        UserError, match=r"failed, all else is done; .* tries again: films/LoRA-r=1-.*: not enough memory"
    ):
        run_study(plan, results, tmp_path / "work", only="LoRA", console=screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert re.search(r"films  LoRA r=1  lr 0.0\d  seed 3  failed: ", said)
    done = {(r["method"], r["rate"], r["seed"]) for r in results.all()}
    assert {("LoRA r=2", seed) for seed in plan.seeds} <= {(method, seed) for method, _, seed in done}
    assert {rate for method, rate, _ in done if method == "LoRA r=1"} >= {0.04}
    assert {row["method"] for row in summaries(plan, results)} == {"LoRA r=2"}
    assert trained.count("failed") == (where == "train")  # once for all seeds
    before, failing[0] = len(trained), False
    run_study(plan, results, tmp_path / "work", only="LoRA")
    whole = {row["method"]: row["seeds"] for row in summaries(plan, results)}
    assert whole == {"LoRA r=1": plan.seeds, "LoRA r=2": plan.seeds}
    assert len(trained) - before == (2 if where == "train" else 0)


def test_a_method_may_have_rates_of_its_own(content: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    content["methods"][1]["rates"] = [0.1, 0.2]
    content["tasks"]["films"]["train"]["max_steps"] = 1
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    tried = {label: rates.tried for (label, _), rates in plan.searches().items()}
    assert tried == {"LoRA r=1": plan.rates, "LoRA r=2": plan.rates, "pool": [0.1, 0.2]}
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    assert {r["rate"] for r in results.all()} == {0.1, 0.2}


def test_rates_may_be_fixed_task_by_task(content: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    """One run a seed there and no search, also where the study would look further; elsewhere the search is as ever."""
    content["further_rates"] = 2
    content["methods"] = [{**content["methods"][1], "fixed_rates": {"films": 0.7}}]
    content["tasks"]["films"]["train"]["max_steps"] = 1
    content["tasks"]["others"] = content["tasks"]["films"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    assert {task: (list(tried), further) for (_, task), (tried, _, further) in plan.searches().items()} == {
        "films": ([0.7], 0),
        "others": ([0.01, 0.04], 2),
    }
    run_study(plan, results, tmp_path / "work", task="films")
    assert [(r["rate"], r["seed"], r["test"] is not None) for r in results.all()] == [(0.7, 3, True), (0.7, 4, True)]


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.01, [0.0025, 0.01, 0.04]),
        (0.04, [0.01, 0.04, 0.16]),
        (1e-9, [0.000625, 0.0025, 0.01, 0.04]),
        (1e9, [0.01, 0.04, 0.16, 0.64]),
    ],
)
def test_the_search_goes_on_at_an_end(best: float, tried: list[float]) -> None:
    """It ends where the best rate has one on each side, or after two more."""
    rates = Rates([0.04, 0.01], 4.0, 2)

    def score(rate: float) -> float:
        return -abs(rate - best) if best < 1 else rate

    asked, chosen = carried(rates, score)
    assert asked[:2] == [0.01, 0.04]  # side by side
    assert sorted(asked) == pytest.approx(tried)
    assert chosen == pytest.approx(min(tried, key=lambda rate: abs(rate - best)))


def test_the_search_where_no_rate_is_better() -> None:
    rates = Rates([0.01, 0.04], 4.0, 2)
    assert carried(rates, lambda rate: RAN_AWAY) == (pytest.approx([0.01, 0.04, 0.0025, 0.000625]), None)
    assert carried(Rates([0.01], 4.0, 2), lambda rate: 0.5) == ([0.01], 0.01)  # nothing to be compared with
    assert carried(rates, lambda rate: RAN_AWAY if rate > 0.01 else rate)[1] == 0.01
    assert carried(rates, lambda rate: rate, greater_is_better=False)[1] == pytest.approx(0.000625)


@pytest.mark.parametrize(
    ("score", "tried", "chosen"),
    [
        (lambda rate: 0.0, [0.0025, 0.16, 0.000625], 0.01),  # level wherever one looks
        (lambda rate: float(rate < 0.009), [0.0025, 0.000625, 0.00015625], 0.00015625),  # all were too large
        (lambda rate: float(rate == 0.0025), [0.0025, 0.000625], 0.0025),
        (lambda rate: float(rate > 0.05), [0.0025, 0.16, 0.64], 0.16),  # all were too small
        (lambda rate: RAN_AWAY if rate > 0.05 else 0.0, [0.0025, 0.16, 0.000625], 0.01),
        (lambda rate: 0.0 if rate > 0.009 else -1.0, [0.0025], 0.01),  # level above, and worse below
    ],
)
def test_where_all_are_level_the_search_goes_on_both_ways(
    score: Callable[[float], float], tried: list[float], chosen: float
) -> None:
    asked, best = carried(Rates([0.01, 0.04], 4.0, 3), score)
    assert asked == pytest.approx([0.01, 0.04, *tried])
    assert best == pytest.approx(chosen)


def carried(
    rates: Rates, score: Callable[[float], float], greater_is_better: bool = True
) -> tuple[list[float], float | None]:
    """What a search asks for, in order, and what it finds."""
    scores: dict[float, float] = {}
    while (found := search(rates, scores.get, greater_is_better)).missing:
        assert found.best is None
        scores |= {rate: score(rate) for rate in found.missing}
    return list(scores), found.best


def test_results_of_other_settings_are_not_mixed_in(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    file = next(iter(results.folder.glob("*/*lr=0.01*.json")))
    content = json.loads(file.read_text())
    del content["settings"]["method"]["fixed_ratio"]  # as if that option had come later
    file.write_text(json.dumps(content))
    count = len(trained)
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    assert len(trained) == count
    content["settings"]["train"]["weight_decay"] = 0.1  # as if that had been the default
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was run with other settings"):
        run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    content["settings"]["train"]["weight_decay"] = 0.0
    file.write_text(json.dumps(content))
    longer = plan.tasks["films"].model_copy(update={"validation_examples": 10})
    with pytest.raises(UserError, match=r"was run with other settings than the study has now; take another --out"):
        run_study(plan.model_copy(update={"tasks": {"films": longer}}), results, tmp_path / "again", only="pool")
    next(iter(results.folder.glob("*/*.json"))).write_text("{")
    with pytest.raises(UserError, match="not a result of a study"):
        run_study(plan, results, tmp_path / "work", only="pool")


def of_weights(folder: Path, **more: Any) -> dict[str, Any]:
    return base_model(ModelSection(name=str(folder), **more))


def test_models_of_one_name_are_told_apart_by_what_is_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRUCTUNE_CACHE", str(tmp_path / "cache"))
    one, other = tmp_path / "one" / "bert", tmp_path / "other" / "bert"
    for folder in (one, other):
        shutil.copytree(tiny_model, folder)
    first = of_weights(one)
    assert len(first["weights"]) == 16
    assert of_weights(other) == first  # wherever it lies, whenever it was copied
    (other / "README.md").write_text("a card")
    (other / "pytorch_model.bin").write_bytes(b"weights in a format that is not loaded")
    (other / "checkpoint-1").mkdir()
    (other / "checkpoint-1" / "model.safetensors").write_bytes(b"x")
    assert of_weights(other) == first
    weights = other / "model.safetensors"
    about, content = weights.stat(), bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, and the time set back
    weights.write_bytes(content)
    os.utime(weights, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert of_weights(other) != first
    monkeypatch.setattr(hashes, "_KEPT", 0)
    hashes._hash_of_state.cache_clear()
    assert of_weights(one) == first
    hashes._hash_of_state.cache_clear()
    monkeypatch.delattr(hashes, "_pieces")  # the next process reads no file again
    assert of_weights(one) == first
    assert of_weights(one, dtype="bf16") == first | {"dtype": "bf16"}
    assert base_model(ModelSection(name="owner/bert"), exclude_defaults=True) == {"id": "owner/bert"}
    assert base_model(ModelSection(), exclude_defaults=True) == {}


def test_results_belong_to_one_model(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path, trained: list[str]
) -> None:
    def study(**model: Any) -> Study:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content | {"model": model}))
        return Study.load(tmp_path / "tiny.yaml")

    def again(plan: Study) -> None:
        run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="pool", first_seed_only=True)

    copy = tmp_path / "copy" / tiny_model.name
    shutil.copytree(tiny_model, copy)
    again(study(name=str(tiny_model)))
    count = len(trained)
    again(study(name=str(copy)))
    assert len(trained) == count
    with pytest.raises(UserError, match="was run with other settings"):
        again(study(name=str(tiny_model), dtype="bf16"))
    config = copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "relu"}))
    with pytest.raises(UserError, match="was run with other settings"):
        again(study(name=str(copy)))
    with pytest.raises(UserError, match=r"is of a model in a folder, and model.name = 'elsewhere/.*' is no folder"):
        again(study(name=f"elsewhere/{tiny_model.name}"))
    for file in (tmp_path / "results").glob("*/*.json"):  # as they were before
        old = json.loads(file.read_text())
        del old["settings"]["base"]
        file.write_text(json.dumps(old))
    with pytest.warns(DataWarning, match="because its name is theirs") as warned:
        again(study(name=str(copy)))
    assert len([each for each in warned if "because its name" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        again(study(name=f"elsewhere/{tiny_model.name}"))
    assert len(trained) == count


def test_settings_of_the_recipe_come_before_columns_of_the_same_name(tmp_path: Path) -> None:
    """A column `seed` does not hide which seed the run had."""
    (tmp_path / "rows.csv").write_text("image,text\n")
    files = dict.fromkeys(("train", "evaluation"), str(tmp_path / "rows.csv"))
    content = {"task": "text-to-image", "model": {"name": "x"}, "method": "c3a", "seed": 7}
    recipe = Recipe.parse({**content, "data": {**files, "caption": "words"}}, "here").resolved()
    said = settings(recipe)
    assert (said["seed"], said["caption"]) == (7, "words")


def test_table_and_figure(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    results = Results(tmp_path / "results")
    with pytest.raises(UserError, match="no run of the study has a test score yet"):
        draw(plan, results, tmp_path / "figure.png")
    run_study(plan, results, tmp_path / "work", only="pool")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tiny -->\nold\n<!-- end of tiny -->\nafter\n")
    put_into(page, plan.name, table(plan, results))
    text = page.read_text()
    assert text.startswith("before\n<!-- tiny -->\n")
    assert text.endswith("<!-- end of tiny -->\nafter\n")
    assert "old" not in text
    mean = sum(r["test"]["accuracy"] for r in results.all() if r["test"]) / 2
    assert re.search(rf"\| pool \| 52 \| 0\.0[14] \| [^|]* \| {100 * mean:.1f} ± [0-9.]+ \| 3, 4 \|", text)
    draw(plan, results, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    page.write_text("nothing")
    with pytest.raises(UserError, match="has no lines <!-- tiny --> and <!-- end of tiny -->"):
        put_into(page, plan.name, "text")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods=[{label: one, method: {name: lora, rank: [1, 2]}}]", "two have the label 'one'"),
        ("methods=[{label: '{size}', method: {name: lora, rank: 1}}]", "names 'size', which is no option there"),
        ("methods=[{label: a, method: {name: lora, rang: 1}}]", "method 'a': method.rang: unknown key"),
        (
            "methods=[{label: LoRA, method: {name: lora}}, {label: LoRA+, method: {name: lora, rank: 4}}]",
            "the files of 'LoRA' and 'LoRA+' would have one name",
        ),
        (
            "methods=[{label: 'α={rank}', method: {name: lora, rank: 8}}, {label: 'β=8', method: {name: lora}}]",
            "the files of 'α=8' and 'β=8' would have one name",
        ),
        (
            "methods=[{label: LoRA, method: {name: lora}}, {label: lora, method: {name: lora, rank: 4}}]",
            "the files of 'LoRA' and 'lora' would have one name",
        ),
        ("methods=[{label: '{}', method: {name: lora}}]", "label '{}': braces hold the name of an option"),
        ("methods=[{label: 'a {', method: {name: lora}}]", "label 'a {': braces hold the name of an option"),
        ("methods=[{label: '{name.x}', method: {name: lora}}]", "braces hold the name of an option"),
        ("methods=[{label: a, method: {name: lora, rank: []}}]", "methods.0.method: rank = []: name values"),
        ("name=../x", "'../x' cannot be the name of a folder"),
        ("name=''", "'' cannot be the name of a folder"),
        ("seeds=[1, 0, 1]", "1 is there twice"),
        ("seeds=[-1]", "seeds.0 = -1"),
        ("rates=[1e-3, 1.0001e-3]", "0.001 is there twice"),
        ("methods=[{label: a, method: {name: lora}, rates: [1, 1]}]", "1.0 is there twice"),
        ("rates=[]", "rates"),
        ("tasks.films.metric=bleu", "tasks.films.metric = 'bleu'"),
        ("sedes=[1]", "sedes: unknown key"),
        (
            "methods=[{label: a, method: {name: lora}, rates: [1e-3]}]",
            "'a' has 1 rates and the others 2; give it as many",
        ),
        ("methods=[{label: a, method: {name: lora}, rates: [0, 1]}]", "methods.0.rates.0 = 0"),
        (
            "methods=[{label: a, method: {name: lora}, fixed_rates: {flims: 1e-3}}]",
            "fixed_rates of 'a' name 'flims' (did you mean 'films'?); the study has films",
        ),
    ],
)
def test_mistakes_in_the_file(plan: Study, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        Study.load(tmp_path / "tiny.yaml", [override])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("glue/cola", "take one without / \\ and :, such as glue-cola"),
        ("glue\\cola", "such as glue-cola"),
        ("../films", "'../films' cannot be the name of a folder"),
        ("..", "'..' cannot be the name of a folder"),
        (" ", "' ' cannot be the name of a folder"),
        ("Films", "'Films' and 'films' differ in case only"),
    ],
)
def test_tasks_have_names_of_folders(content: dict[str, Any], tmp_path: Path, name: str, said: str) -> None:
    content["tasks"][name] = content["tasks"]["films"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=re.escape(said)):
        Study.load(tmp_path / "tiny.yaml")


def test_a_run_that_was_begun_is_gone_on_with(plan: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(training, "train", lambda recipe, resume, **_: asked.append(resume))
    content = {"model": plan.model, "data": plan.tasks["films"].data, "output": str(tmp_path / "run")}
    job = Job(Recipe.parse(content).resolved())
    assert workers.carry_out(job).kind == "finished"
    job.run.begin(job.recipe, resume=False)
    assert workers.carry_out(job).kind == "finished"
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("train", "metric"), [({"best_checkpoint": True}, "f1"), ({"early_stopping": 2}, "f1"), ({}, None)]
)
def test_checkpoints_are_chosen_by_the_score_that_is_reported(
    content: dict[str, Any], tmp_path: Path, train: dict[str, Any], metric: str | None
) -> None:
    content["tasks"]["films"] |= {"metric": "f1", "train": content["tasks"]["films"]["train"] | train}
    plan = Study.model_validate(content)
    runner = Runner(
        plan, Results(tmp_path), tmp_path, [Pair("films", *next(iter(plan.settings().items())))], [3], False
    )
    assert {step.job.recipe.train.metric for step in runner.steps()} == {metric}


def test_only_the_runs_that_were_chosen_are_kept(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    (tmp_path / "work" / "runs" / "films" / "pool-lr=0.01-seed=3").mkdir(parents=True)
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="pool")
    found = {(r["rate"], r["seed"]) for r in Results(tmp_path / "results").all() if r["test"]}
    kept = {f"pool-lr={rate:.3g}-seed={seed}" for rate, seed in found}
    assert len(kept) == 2
    folder = tmp_path / "work" / "runs" / "films"
    assert {path.name for path in folder.iterdir()} == kept
    assert all((folder / name / "adapter" / "adapter_model.safetensors").is_file() for name in kept)
    assert not list(folder.glob("*/checkpoints"))


def two_at_a_time(file: Path, only: str = "pool") -> None:
    run_study(Study.load(file), Results(file.parent / "results"), file.parent / "work", only=only, jobs=2)


def until_killed(file: Path) -> None:
    """The same in a child of the fork server, which is there already and need not import everything anew."""
    vars(multiprocessing.forkserver._forkserver)["ensure_running"] = lambda: None
    two_at_a_time(file)


def test_processes_side_by_side_stopped_killed_and_gone_on_with(
    content: dict[str, Any], tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time, through Ctrl-C and a kill, come to what one after the other comes to in one go."""
    content["tasks"]["films"]["train"] |= {"max_steps": 48, "save_steps": 6}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    run_study(Study.load(file), Results(tmp_path / "alone"), tmp_path / "other", only="pool")
    monkeypatch.setattr(module, "Workers", workers.Workers)
    runs = tmp_path / "work" / "runs" / "films"

    def interrupt() -> None:
        saved = "*/checkpoints/checkpoint-*/trainer_state.json"
        wait_until(lambda: next(runs.glob(saved), None))
        os.kill(os.getpid(), signal.SIGINT)

    watching = threading.Thread(target=interrupt)
    watching.start()
    with pytest.raises(Interrupted, match="the same command goes on"):
        two_at_a_time(file)
    watching.join()
    assert any(Run(run).state() == "unfinished" and Run(run).last_checkpoint() for run in runs.iterdir())

    context: Any = multiprocessing.get_context("forkserver")
    killed = context.Process(target=until_killed, args=(file,))
    killed.start()
    wait_until(lambda: list((tmp_path / "results").glob("*/*.json")))
    killed.kill()
    killed.join()
    assert len(list((tmp_path / "results").glob("*/*.json"))) < 3

    two_at_a_time(file)
    assert scores(tmp_path / "results") == scores(tmp_path / "alone")
    assert len(scores(tmp_path / "alone")) == 3


def test_scores_of_another_choice_of_rate_are_not_mixed_in(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    """A search that goes on further than it did chooses anew."""
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool")
    (before,) = summaries(plan, results)
    for file in results.folder.glob("*/*.json"):
        content = json.loads(file.read_text())
        if content["rate"] == before["rate"]:
            content["validation"]["accuracy"] = -1.0
            file.write_text(json.dumps(content))
    run_study(plan, results, tmp_path / "work", only="pool")
    assert {r["rate"] for r in results.all() if r["test"]} == set(plan.rates)
    (after,) = summaries(plan, results)
    assert after["rate"] != before["rate"]
    assert after["seeds"] == [3, 4]
    assert after["validation"][0] > 0


def test_other_machines_results_count(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    """One machine has searched, another goes on with what it finds, and both are one study."""
    first = Results(tmp_path / "first")
    run_study(plan, first, tmp_path / "work", only="pool", first_seed_only=True)
    untested = next(file for file in first.folder.glob("*/*.json") if json.loads(file.read_text())["test"])
    copy = tmp_path / "second" / untested.relative_to(first.folder)
    copy.parent.mkdir(parents=True)
    copy.write_text(json.dumps(json.loads(untested.read_text()) | {"test": None}))
    count = len(trained)
    both = Results(tmp_path / "second", [first.folder])
    run_study(plan, both, tmp_path / "other", only="pool")
    assert len(trained) == count + 1  # the other seed
    assert len(both.all()) == 3
    (row,) = summaries(plan, both)
    assert row["seeds"] == [3, 4]
    with pytest.raises(UserError, match="--results 'nowhere': no such folder"):
        Results(tmp_path / "second", [Path("nowhere")])


def test_a_dry_run_says_what_is_left(plan: Study, tmp_path: Path, trained: list[str], screen: Console) -> None:
    results, wide = Results(tmp_path / "results"), Console(file=screen.file, width=200)

    def said(jobs: int, **more: Any) -> str:
        screen.file.seek(0)
        screen.file.truncate()
        run_study(plan, results, tmp_path / "work", dry_run=True, timing=False, jobs=jobs, console=wide, **more)
        return screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO

    assert said(1).count("seed 3  train\n") == 3 * 2
    assert "films  LoRA r=2  then the best one's test score, seed 4\n" in said(1)
    assert said(1).count(" then ") == 3
    assert "films  pool  then the best one's test score\n" in said(1, first_seed_only=True)
    assert "0 runs and test scores are done, 12 left: no run was timed, and none is finished on this machine" in said(1)
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    for file in results.folder.glob("*/*.json"):
        found = json.loads(file.read_text())
        assert found["run_seconds"] > found["train_seconds"] - 0.1
        assert ("test_seconds" in found) == (found["test"] is not None)
        whole = {"run_seconds": 540} | ({} if found["test"] is None else {"test_seconds": 60})
        file.write_text(json.dumps(found | {"train_seconds": 400} | whole))
    assert len(trained) == 2
    assert re.search(r"films  pool  lr 0\.0[14]  seed 4  train and test  about 10 min\n", said(2))
    # of the pool the other seed; of the others, of which nothing is known, two rates, two test scores, the other seed
    assert (
        "3 runs and test scores are done, 9 left: about 5 min at 2 at a time, without 8 of which nothing is known"
        in said(2)
    )
    assert "0.08 hours of this machine, which cost 0.25 at 3 an hour" in said(2, price_per_hour=3.0)
    assert "films  LoRA r=2  then" in said(2) and "films  pool  then" not in said(2)  # nothing waits for a search
    files = {file: json.loads(file.read_text()) for file in results.folder.glob("*/*.json")}
    for what in ("platform", "cpu", "gpu"):
        for file, here in files.items():
            file.write_text(json.dumps(here | {"versions": here["versions"] | {what: "another"}}))
        assert "3 runs and test scores are done, 9 left: no run was timed" in said(1)
    for file, here in files.items():
        file.write_text(json.dumps(here))
    assert len(trained) == 2
    run_study(plan, results, tmp_path / "work", only="pool", console=wide)
    lines = screen.file.getvalue().splitlines()[-2:]  # type: ignore[attr-defined]  # a StringIO
    assert lines[0] == "3 runs and test scores are done, about 1 left: about 10 min"
    assert re.fullmatch(r"4/4  films  pool  lr 0\.0[14]  seed 4  test accuracy [0-9.]+%  \d+ s  done", lines[1])
    assert "4 runs and test scores are done, 8 left: no run was timed" in said(1)
    with pytest.raises(UserError, match="--price-per-hour 0: give a price above 0"):
        said(1, price_per_hour=0)
    with pytest.raises(UserError, match="--ray auto: --dry-run takes its times on this machine"):
        said(1, ray="auto")


def test_a_dry_run_of_a_rate_that_is_not_searched(content: dict[str, Any], tmp_path: Path, screen: Console) -> None:
    content["methods"][1]["fixed_rates"] = {"films": 0.02}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool", dry_run=True, timing=False, console=screen)
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert lines[:2] == ["films  pool  lr 0.02  seed 3  train", "films  pool  then its test score, seed 4"]


def test_a_dry_run_times_steps_of_each_method(
    content: dict[str, Any], tmp_path: Path, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "Workers", InTurn)
    content["methods"].append({"label": "long", "method": {"name": "peft_c3a", "block_size": 7}})  # does not divide 32
    content["tasks"]["films"]["train"]["max_steps"] = 1000
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan, results = Study.load(tmp_path / "tiny.yaml"), Results(tmp_path / "results")
    wide = Console(file=screen.file, width=200)
    with pytest.raises(UserError, match="these would fail:\nfilms/long-lr=0.01-seed=3: "):
        run_study(plan, results, tmp_path / "work", only="pool|long", dry_run=True, console=wide)
    said = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    step, run = re.search(r"1/2  films  pool  ([0-9.e-]+) s a step, about (\d+) (?:s|min) a run", said).groups()  # type: ignore[union-attr]
    assert f"films  pool  lr 0.01  seed 3  train  about {run}" in said
    hours = float(re.search(r"([0-9.]+) hours of this machine", said)[1])  # type: ignore[index]
    assert hours * 3600 == pytest.approx(3 * 1000 * float(step), rel=0.5, abs=60)  # two rates and the other seed
    assert "without 4 of which nothing is known" in said
    assert not results.all()
    assert not (tmp_path / "work" / "runs").exists()


def test_the_time_is_over_while_a_run_goes_on(content: dict[str, Any], tmp_path: Path, screen: Console) -> None:
    content["tasks"]["films"]["train"] |= {"max_steps": 100_000}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    results = Results(tmp_path / "results")
    plan = Study.load(tmp_path / "tiny.yaml")
    run_study(plan, results, tmp_path / "work", only="pool", hours=1 / 3600, console=screen)
    assert "the time is over, about 4 runs and test scores are left" in " ".join(screen.file.getvalue().split())
    assert not results.all()
    with pytest.raises(UserError, match="--hours 0: give a time above 0"):
        run_study(plan, results, tmp_path / "work", hours=0)


@pytest.mark.parametrize("hours", [None, 0.05 / 3600])
def test_where_there_is_no_room_it_is_waited_for(
    plan: Study, tmp_path: Path, screen: Console, monkeypatch: pytest.MonkeyPatch, hours: float | None
) -> None:
    """Until the time is over, which is said then alone."""

    class Full(InTurn):
        asked = 0

        @property
        def free(self) -> int:
            self.asked += 1
            return super().free if hours is None and self.asked > 3 else 0

        def start(self, key: str, job: Job) -> None:
            self._ended.append((key, Outcome("diverged", "why")))

    monkeypatch.setattr(module, "Workers", Full)
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.01)
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool", hours=hours, console=screen)
    said = " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO
    assert len(results.all()) == (2 if hours is None else 0)
    assert hours is not None or said.count("there is no room for a run at the moment") == 1
    assert ("the time is over" in said) == (hours is not None)


def test_a_test_score_stands_beside_the_record_of_the_training_that_it_is_of(
    plan: Study, tmp_path: Path, trained: list[str]
) -> None:
    """Where another machine has the run and its result came here without a test score, the run is trained here."""
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", only="pool", first_seed_only=True)
    (file,) = (file for file in results.folder.glob("*/*.json") if json.loads(file.read_text())["test"])
    whole, count = json.loads(file.read_text()), len(trained)
    elsewhere = {"test": None, "curve": [[1, 9.0]], "device": "another", "versions": {"platform": "another"}}
    file.write_text(json.dumps(whole | elsewhere))
    run_study(plan, results, tmp_path / "other", only="pool", first_seed_only=True)
    assert trained[count:] == [file.stem]
    now = json.loads(file.read_text())
    assert {key: now[key] for key in elsewhere} == {key: whole[key] for key in elsewhere}
    assert now["validation"] == whole["validation"]


def test_results_say_how_the_scores_came(content: dict[str, Any], tmp_path: Path) -> None:
    """Each epoch is scored on the validation part, and the last of these scores is the run's."""
    content["tasks"]["films"]["train"] = {"epochs": 2, "batch_size": 8, "device": "cpu", "evaluate_first": True}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    results = Results(tmp_path / "results")
    run_study(Study.load(tmp_path / "tiny.yaml"), results, tmp_path / "work", only="pool", first_seed_only=True)
    for result in results.all():
        curve = result["validation_curve"]
        assert curve["step"] == [0, result["steps"] // 2, result["steps"]]
        assert {key: values[0] for key, values in curve.items() if key != "step"} == result["untrained"]
        assert {key: values[-1] for key, values in curve.items() if key != "step"} == result["validation"]


def test_a_task_may_have_its_own_model(content: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    content["tasks"]["films"]["model"] = content["model"]
    content["model"] = {"name": "nowhere"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    results = Results(tmp_path / "results")
    run_study(Study.load(tmp_path / "tiny.yaml"), results, tmp_path / "work", only="pool", first_seed_only=True)
    assert {result["settings"]["model"] for result in results.all()} == {
        Path(content["tasks"]["films"]["model"]["name"]).name
    }


def test_an_unknown_task(plan: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--task 'books': the study has films"):
        run_study(plan, Results(tmp_path / "results"), tmp_path / "work", task="books")


def test_a_run_has_the_recipe_of_its_task_and_method(plan: Study, tmp_path: Path, trained: list[str]) -> None:
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="pool", first_seed_only=True, keep_runs=True)
    recipe = Run(tmp_path / "work" / "runs" / "films" / "pool-lr=0.01-seed=3").recipe()
    assert (recipe.seed, recipe.train.learning_rate, recipe.train.max_steps) == (3, 0.01, 2)
    assert recipe.method == plan.settings()["pool"]


def test_of_the_head_alone_the_head_s_rate_is_searched(
    content: dict[str, Any], tmp_path: Path, trained: list[str]
) -> None:
    content["methods"] = [{"label": "head", "method": {"name": "head"}}]
    content["tasks"]["films"]["train"]["head_learning_rate"] = 0.5
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    results = Results(tmp_path / "results")
    run_study(Study.load(tmp_path / "tiny.yaml"), results, tmp_path / "work", first_seed_only=True)
    rates = {r["rate"]: r["settings"]["train"]["head_learning_rate"] for r in results.all()}
    assert rates == {0.01: 0.01, 0.04: 0.04}


def test_where_no_head_is_trained_there_is_no_rate_of_one(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path, trained: list[str]
) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=5)
    classifier.save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "classifier")
    content["model"] = {"name": str(tmp_path / "classifier")}
    content["tasks"]["films"]["task"] = {"name": "text-classification", "head": "match"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    plan = Study.load(tmp_path / "tiny.yaml")
    run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="pool", first_seed_only=True, keep_runs=True)
    recipe = Run(tmp_path / "work" / "runs" / "films" / "pool-lr=0.01-seed=3").recipe()
    assert (recipe.train.learning_rate, recipe.train.head_learning_rate) == (0.01, None)


@pytest.mark.parametrize("name", STUDIES)
def test_the_studies_of_this_project_are_valid(name: str) -> None:
    plan = Study.load(Path(__file__).parents[2] / "studies" / f"{name}.yaml")
    assert len(plan.seeds) == (1 if name == "demo" else 3)  # that one only chooses rates
    assert len(plan.settings()) >= 3
