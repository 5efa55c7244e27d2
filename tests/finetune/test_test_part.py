"""Three parts: to train on, to choose by, and for the score that is reported."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from structune import cli
from structune.comparison.side_by_side import Comparison
from structune.comparison.tradeoff_figure import draw_tradeoff
from structune.data import sources
from structune.data.section import DataSection
from structune.data.table import Table
from structune.doubt import DataWarning
from structune.errors import Diverged, UserError
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import TaskData, load_data
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import train
from structune.study.study_file import Study
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.text_classification import TextClassification

ROWS = [(f"text number {n}", "rare" if n % 10 == 0 else "common") for n in range(200)]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def load(**section: Any) -> TaskData:
    return load_data(TextClassification(), LabelledTextData(**section))


def texts(examples: Any) -> set[str]:
    return set(examples.inputs["text"])


@pytest.mark.filterwarnings("ignore:always answering")
def test_the_test_part_is_held_out_first_and_stratified(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", ROWS)
    data = load(train=file, test_examples=40, evaluation_examples=20)
    assert data.test is not None
    assert [len(part) for part in data.parts()] == [140, 20, 40]
    assert Counter(data.test.labels) == {"rare": 4, "common": 36}
    assert Counter(data.evaluation.labels) == {"rare": 2, "common": 18}
    assert len(set().union(*map(texts, data.parts()))) == 200
    assert texts(data.test) == texts(load(train=file, evaluation_examples=40).evaluation)
    assert texts(data.test) == texts(load(train=file, test_examples=40, evaluation_fraction=0.5).test)
    assert len(load(train=file, test_examples=40, evaluation_fraction=0.5).evaluation) == 80


@pytest.mark.filterwarnings("ignore:always answering")
def test_groups_are_in_one_part_only(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = "".join(f"text {n},{'ab'[n % 2]},author {n // 7}\n" for n in range(210))
    path.write_text("text,label,author\n" + rows)
    parts = load(train=str(path), test_examples=40, group="author").parts()
    groups = [set(part.groups) for part in parts]
    assert all(groups)
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


@pytest.mark.filterwarnings("ignore:always answering", "ignore:nothing")
def test_files_for_every_part(tmp_path: Path) -> None:
    train_file, held_out = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", [("b", "rare"), ("bb", "common")])
    test_file = write(tmp_path / "c.csv", [("c", "common"), ("cc", "common"), ("ccc", "rare")])
    data = load(train=train_file, evaluation=held_out, test=test_file)
    assert data.test is not None
    assert [len(part) for part in data.parts()] == [200, 2, 3]
    assert texts(data.test) == {"c", "cc", "ccc"}
    assert [len(part) for part in load(train=train_file, test=test_file, test_examples=2).parts()] == [160, 40, 2]
    for wrong, message in (
        ([("c", "Rare")], "c.csv: the label 'Rare' is not in the training data"),
        ([("c", "")], "data.label = 'label': 1 of 1 rows of"),
    ):
        write(tmp_path / "c.csv", wrong)
        with pytest.raises(UserError) as caught:
            load(train=train_file, test=test_file)
        assert message in str(caught.value)
    with pytest.raises(UserError, match=r"data\.test = '.*d\.csv': no such file"):
        load(train=train_file, test=str(tmp_path / "d.csv"))


def test_splits_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sources, "load_hub", lambda name, subset, split: Table(f"{name}/{split}", {"text": [split]}, [1])
    )
    section = DataSection(hub="o/n", evaluation_split="validation", test_split="test")
    assert [table and table.columns["text"] for table in sources.load_tables(section)] == [
        ["train"],
        ["validation"],
        ["test"],
    ]


def test_what_is_doubtful_about_a_test_part(tmp_path: Path) -> None:
    rows = [(f"text number {n}", "abc"[n % 3]) for n in range(60)]
    file = write(tmp_path / "a.csv", rows)
    seen = sorted(texts(load(train=file).train))[0], sorted(texts(load(train=file).evaluation))[0]
    test_file = write(tmp_path / "c.csv", [(seen[0].upper(), "a"), (seen[1], "b"), ("new", "a"), ("newer", "b")])
    with pytest.warns(DataWarning) as caught:
        load(train=file, test=test_file)
    assert [str(entry.message) for entry in caught] == [
        "1 of 4 rows of the test part (25.0%) are among those to train on: the test score will be too good",
        "1 of 4 rows of the test part (25.0%) are among those to choose by: the test score will be too good",
        "nothing in the test part of 'c' (16) (counted in training)",
    ]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"test_examples": 60}, "60 examples leave 0 to train on, 0 to evaluate on and 60 to test on"),
        ({"test_examples": 20, "train_examples": 50}, "only 32 are left of the 60 in .* when 8 and 20 are held out"),
    ],
)
def test_too_few_examples_for_three_parts(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "a.csv", [(f"text number {n}", "ab"[n % 2]) for n in range(60)])
    with pytest.raises(UserError, match=message):
        load(train=file, **section)


def with_test(recipe: Recipe, **section: Any) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"test_examples": 12, **section})})


@pytest.fixture
def run(recipe: Callable[..., Recipe]) -> Run:
    return train(with_test(recipe("lora", max_steps=8, learning_rate=0.02, head_learning_rate=0.02)))


def test_training_scores_the_test_part_and_evaluating_says_the_same(run: Run) -> None:
    metrics = run.metrics()
    assert (metrics["train_examples"], metrics["eval_examples"], metrics["test_examples"]) == (48, 20, 12)
    result = evaluate(run.folder)
    assert (result.source, result.examples) == ("test part", 12)
    assert result.scores == {key: metrics[f"test_{key}"] for key in ("accuracy", "f1", "matthews")}
    assert result.loss == metrics["test_loss"]
    assert not result.notes
    assert "'negative'" in metrics["test_baseline"]["words"]
    other = evaluate(run.folder, part="validation")
    assert (other.source, other.examples, other.loss) == ("validation part", 20, metrics["eval_loss"])
    assert other.loss != result.loss
    card = (run.adapter / "README.md").read_text()
    assert f"| accuracy on 12 test examples | {metrics['test_accuracy']:.4f} |" in card
    assert f"| loss on them | {metrics['test_loss']:.4f} |" in card
    assert f"| accuracy on 20 examples that choices were made by | {metrics['eval_accuracy']:.4f} |" in card
    assert "No test part" not in card
    assert all("test_loss" not in json.loads(line) for line in run.log_file.read_text().splitlines())


def test_a_test_part_changes_nothing_but_what_is_trained_on(recipe: Callable[..., Recipe]) -> None:
    plain = recipe("lora", output="plain")
    data = load_data(plain.task, with_test(plain).data)
    assert data.test is not None
    rest = Path(str(plain.data.train)).with_name("rest.csv")
    for name, part in (("rest.csv", data.train), ("held.csv", data.evaluation)):
        write(rest.with_name(name), list(zip(part.inputs["text"], part.labels or [], strict=True)))
    files = {"train": str(rest), "evaluation": str(rest.with_name("held.csv")), "evaluation_examples": None}
    same = train(plain.model_copy(update={"data": plain.data.model_copy(update=files)}))
    tested = train(with_test(recipe("lora", output="tested")))
    weights = [(each.adapter / "adapter_model.safetensors").read_bytes() for each in (same, tested)]
    assert weights[0] == weights[1]


def test_a_run_that_ended_before_its_results_were_written_scores_the_test_part_when_it_is_resumed(run: Run) -> None:
    before = run.metrics()
    run.metrics_file.unlink()
    shutil.rmtree(run.adapter)
    after = train(run.recipe(), resume=True).metrics()
    kept = ("test_loss", "test_accuracy", "test_examples", "test_baseline", "eval_loss", "steps")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": "a.csv", "test_split": "test"}, "test_split goes with hub, not with train; remove it"),
        ({"hub": "o/n", "test": "a.csv"}, "test goes with train, not with hub; remove it"),
        ({"train": "a.csv", "test_examples": 0}, "data.test_examples = 0: input should be greater than or equal to 1"),
    ],
)
def test_keys_of_another_source(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.parse({"data": data})
    assert message in str(caught.value)


def test_without_a_test_part_it_is_said(recipe: Callable[..., Recipe], recipe_file: Path) -> None:
    done = CliRunner().invoke(cli.app, ["train", str(recipe_file)])
    assert "No test part: scores are on the examples that choices are made by" in " ".join(done.output.split())
    run = Run(Path(recipe().resolved().output))
    assert "\nNo test part: scores are on the examples that" in (run.adapter / "README.md").read_text()
    assert "test_loss" not in run.metrics()
    with pytest.raises(UserError, match="part = 'test': the run has no test part; train with"):
        evaluate(run.folder, part="test")
    assert evaluate(run.folder).source == "held out"


def test_parts_on_the_command_line(run: Run) -> None:
    done = CliRunner().invoke(cli.app, ["evaluate", str(run.folder)])
    assert "on 12 examples (test part)" in done.output
    done = CliRunner().invoke(cli.app, ["evaluate", str(run.folder), "--part", "validation"])
    assert "on 20 examples (validation part)" in done.output
    for words, message in (
        (["--part", "tset"], "part = 'tset': unknown (did you mean 'test'?); known: validation, test"),
        (["--part", "test", "--data", "x.csv"], "part = 'test' is one of the run's own, and 'x.csv' another file"),
    ):
        done = CliRunner().invoke(cli.app, ["evaluate", str(run.folder), *words])
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())


def test_outputs_on_the_test_part_that_are_no_numbers(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RecipeTrainer.predict

    def broken(self: Any, *arguments: Any, **options: Any) -> Any:
        outcome = original(self, *arguments, **options)
        outcome.predictions[0, 0] = float("nan")
        return outcome

    monkeypatch.setattr(RecipeTrainer, "predict", broken)
    settings = with_test(recipe("lora"))
    with pytest.raises(Diverged, match="an output on the test part is not finite"):
        train(settings)
    assert not Run(Path(settings.resolved().output)).adapter.exists()


def test_the_record_of_the_data_has_the_test_part(run: Run, reviews: Path) -> None:
    record = Fingerprint.load(run.data_file)
    assert record is not None
    assert len(record.test) == 12
    now = load_data(run.recipe().task, run.recipe().data)
    assert record.changes(Fingerprint.of(now), ordered=True) == []
    assert now.test is not None
    changed = reviews.read_text().replace(now.test.inputs["text"][0], "a new film", 1)
    reviews.write_text(changed)
    notes = evaluate(run.folder).notes
    assert any(note.startswith("the data changed since training: ") and "rows: " in note for note in notes)
    content = json.loads(run.data_file.read_text())
    del content["test"]
    run.data_file.write_text(json.dumps(content))
    older = Fingerprint.load(run.data_file)
    assert older is not None
    assert older.changes(record) == ["test rows: 0 then, 12 now (0 gone, 12 new)"]
    assert older.digest() != record.digest()


METRICS: dict[str, Any] = {
    "eval_accuracy": 0.9, "eval_loss": 0.5, "eval_examples": 500, "train_examples": 3000, "steps": 188, "seed": 0,
    "trainable_adapter": 27648, "trainable_head": 770, "adapter_bytes": 112304, "seconds_per_step": 0.4567,
    "peak_memory_bytes": 500 * 2**20, "peak_memory_kind": "rss growth", "device": "cpu", "dtype": "fp32",
    "baseline": {"words": "always answering 'x'", "value": 0.5},
}  # fmt: skip
TESTED = METRICS | {
    "test_accuracy": 0.7, "test_examples": 400, "test_baseline": {"words": "always answering 'y'", "value": 0.6},
}  # fmt: skip


def finished(folder: Path, metrics: dict[str, Any]) -> Run:
    run = Run(folder)
    run.folder.mkdir()
    run.recipe_file.write_text(
        "data: {train: films.csv}\noutput: here\ntrain: {learning_rate: 1, head_learning_rate: 1}"
    )
    run.metrics_file.write_text(json.dumps(metrics))
    run.versions_file.write_text(json.dumps({"torch": "2.13.0"}))
    return run


def test_methods_are_compared_by_the_test_score_where_all_have_one(tmp_path: Path) -> None:
    tested = {name: [finished(tmp_path / name, TESTED)] for name in ("c3a", "lora")}
    comparison = Comparison.of("films", tested)
    assert [row.score for row in comparison.rows] == [0.7, 0.7]
    notes = " ".join(comparison.notes())
    assert "500 held out, 400 to test on; seed 0." in notes
    assert "always answering 'y': accuracy 60.0%" in notes
    assert "With so many test examples" in notes
    assert "No test part" not in notes
    assert comparison.to_json()["part"] == "test"
    draw_tradeoff(comparison, tmp_path / "x.png")
    untested = {name: [finished(tmp_path / f"{name}-2", METRICS)] for name in ("c3a", "lora")}
    other = Comparison.of("films", untested)
    assert [row.score for row in other.rows] == [0.9, 0.9]
    assert "No test part" in " ".join(other.notes())
    with pytest.raises(UserError, match="test_examples: 400 and None"):
        Comparison.of("films", {"c3a": tested["c3a"], "lora": untested["lora"]})


def test_a_study_has_parts_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: x\nseeds: [0]\nrates: [1e-3]\nmethods: [{label: c3a, method: {name: c3a}}]\n"
        "tasks: {films: {data: {train: a.csv, test_examples: 9}}}\n"
    )
    with pytest.raises(UserError, match=r"data\.test_examples: in a study evaluation_examples says the test part"):
        Study.load(path)
