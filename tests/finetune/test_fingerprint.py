"""The data of a run are known again: what changed is said, by whoever reads them next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from structune import cli
from structune.data.examples import Examples
from structune.errors import Interrupted, UserError
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.fingerprint import Fingerprint, Rows
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.task_data import TaskData
from structune.finetune.training import train

MakeRecipe = Callable[..., Recipe]


def examples(rows: list[tuple[str, ...]]) -> Examples:
    inputs = dict(zip(("text", "text_pair"), map(list, zip(*(row[:-1] for row in rows), strict=True)), strict=False))
    labels = [row[-1] for row in rows]
    return Examples(inputs, labels, [row[0] for row in rows], labels)


def fingerprint(train_rows: list[tuple[str, ...]], held_out: list[tuple[str, ...]]) -> Fingerprint:
    return Fingerprint.of(
        TaskData(examples(train_rows), examples(held_out), {"classes": sorted({row[-1] for row in train_rows})})
    )


ROWS: list[tuple[str, ...]] = [("one film", "good"), ("another", "bad"), ("a third", "good")]
HELD: list[tuple[str, ...]] = [("a fourth", "bad")]


@pytest.mark.parametrize(
    ("rows", "held", "changes"),
    [
        (ROWS, HELD, []),
        (ROWS[::-1], HELD, ["training rows: the same, in another order"]),
        (ROWS[:2], HELD, ["training rows: 3 then, 2 now (1 gone, 0 new)"]),
        ([*ROWS, ROWS[0]], HELD, ["training rows: 3 then, 4 now (0 gone, 1 new)"]),
        ([("one film", "bad"), *ROWS[1:]], HELD, ["training rows: 3 then, 3 now (1 gone, 1 new)"]),
        ([("One film", "good"), *ROWS[1:]], HELD, ["training rows: 3 then, 3 now (1 gone, 1 new)"]),
        (ROWS, [("a fifth", "bad")], ["held-out rows: 1 then, 1 now (1 gone, 1 new)"]),
        (
            [(text, {"good": "fine"}.get(label, label)) for text, label in ROWS], HELD,
            ["training rows: 3 then, 3 now (2 gone, 2 new)", "classes: 'bad', 'good' then, 'bad', 'fine' now"],
        ),
    ],
)  # fmt: skip
def test_changes_are_named(rows: list[Any], held: list[Any], changes: list[str]) -> None:
    before = fingerprint(ROWS, HELD)
    assert before.changes(fingerprint(rows, held), ordered=True) == changes
    inward = [change for change in changes if "another order" not in change]
    assert before.changes(fingerprint(rows, held)) == inward
    assert (before.digest() == fingerprint(rows, held).digest()) == (not inward)


def test_parts_of_a_row_do_not_run_together() -> None:
    rows: list[list[tuple[str, ...]]] = [
        [("ab", "c", "x")], [("a", "bc", "x")], [("ab", "cx", "")], [("abc", "", "x")], [("abcx", "")],
    ]  # fmt: skip
    assert len({Rows.of(examples(each)).digest() for each in rows}) == len(rows)
    assert len({Rows.of(examples(each)).inputs for each in rows[:2]}) == 2


def test_texts_are_known_but_for_case_and_spaces() -> None:
    before = fingerprint(ROWS, HELD)
    assert before.trained_on(Rows.of(examples([("ONE  film ", "bad"), ("a fourth", "bad"), ("a third", "good")]))) == 2


def test_it_is_read_back_and_damage_is_told(tmp_path: Path) -> None:
    before = fingerprint(ROWS, HELD)
    path = tmp_path / "data.json"
    assert Fingerprint.load(path) is None
    path.write_text(json.dumps(before.to_json()))
    assert Fingerprint.load(path) == before
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=r"data\.json: is damaged"):
        Fingerprint.load(path)


def stopped(settings: Recipe, monkeypatch: pytest.MonkeyPatch) -> Run:
    def stop(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.number = 2

    with monkeypatch.context() as patch:
        patch.setattr(StopOnInterrupt, "on_step_begin", stop)
        with pytest.raises(Interrupted):
            train(settings)
    return Run(Path(settings.output or ""))


def renamed(text: str) -> str:
    """The two classes change places."""
    return text.replace(",positive", ",x").replace(",negative", ",positive").replace(",x", ",negative")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "the end,negative\n", r"1 new"),
        (renamed, r"training rows: 60 then, 60 now \(60 gone, 60 new\); held-out rows: 20 then, 20 now"),
        (lambda text: text.replace("positive", "pos"), r"classes: 'negative', 'positive' then, 'negative', 'pos' now"),
        (lambda text: "text,label\n" + "".join(reversed(text.splitlines(True)[1:])), "in another order"),
    ],
)
def test_resume_refuses_other_data(
    change: Callable[[str], str], message: str, recipe: MakeRecipe, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(recipe(), monkeypatch)
    before = reviews.read_text()
    reviews.write_text(change(before))
    with pytest.raises(UserError, match=f"--resume: the data differ from the run's .*{message}"):
        train(recipe(), resume=True)
    assert run.state() == "unfinished"
    reviews.write_text(before)
    assert train(recipe(), resume=True).state() == "finished"


def test_the_same_data_elsewhere_are_the_same(recipe: MakeRecipe, recipe_file: Path, reviews: Path) -> None:
    run = train(recipe(max_steps=1))
    content = yaml.safe_load(run.recipe_file.read_text())
    moved = reviews.rename(reviews.with_name("moved.csv"))
    content["data"]["train"] = str(moved)
    run.recipe_file.write_text(yaml.safe_dump(content))
    assert evaluate(run.folder).notes == []


def test_evaluate_says_what_changed(recipe: MakeRecipe, reviews: Path) -> None:
    run = train(recipe(max_steps=2))
    assert evaluate(run.folder).notes == []
    lines = reviews.read_text().splitlines(True)
    reviews.write_text("".join([lines[0], *lines[41:]]))
    result = CliRunner().invoke(cli.app, ["evaluate", str(run.folder)])
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    notes = json.loads(run.evaluation_file.read_text())["notes"]
    assert all(note in shown for note in notes)
    assert any(note.startswith("the data changed since training: held-out rows: 20 then, 20 now") for note in notes)
    assert any(note.endswith("were trained on: their scores are too good") for note in notes)


def test_evaluate_says_what_was_trained_on(recipe: MakeRecipe, reviews: Path, tmp_path: Path) -> None:
    run = train(recipe(max_steps=2))
    result = evaluate(run.folder, reviews)
    assert result.notes == ["60 of these 80 rows were trained on: their scores are too good"]
    other = tmp_path / "other.csv"
    other.write_text("text,label\nthe film was nothing of the sort,positive\n")
    assert evaluate(run.folder, other).notes == []
    run.data_file.unlink()
    assert "cannot be checked" in evaluate(run.folder, other).notes[0]


def test_evaluate_refuses_classes_that_the_model_does_not_know(recipe: MakeRecipe, reviews: Path) -> None:
    run = train(recipe(max_steps=2))
    reviews.write_text(reviews.read_text().replace("positive", "pos"))
    with pytest.raises(UserError, match="the label 'pos' is not in the training data"):
        evaluate(run.folder)
