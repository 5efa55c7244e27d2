"""Labelled examples, and what is held out."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from structune.data.examples import Examples
from structune.data.split import stratified_split
from structune.errors import UserError
from structune.finetune.task_data import TaskData, load_data, load_file
from structune.tasks.parts.classes.classes import label_names
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.text_classification import TextClassification


def write(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> str:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


def load(tmp_path: Path, rows: list[tuple[str, ...]], header: str = "text,label", **section: Any) -> TaskData:
    return load_data(TextClassification(), LabelledTextData(train=write(tmp_path / "x.csv", rows, header), **section))


def examples(labels: list[str], groups: list[str] | None = None) -> Examples:
    texts = [f"text {number}" for number in range(len(labels))]
    return Examples({"text": texts}, labels, groups or texts, labels)


def test_split_is_exact_stratified_and_disjoint(tmp_path: Path) -> None:
    rows = [(f"text number {n}", "rare" if n % 10 == 0 else "common") for n in range(200)]
    data = load(tmp_path, rows, evaluation_examples=50, train_examples=100)
    assert (len(data.train), len(data.evaluation)) == (100, 50)
    assert Counter(data.evaluation.labels) == {"rare": 5, "common": 45}
    assert Counter(data.train.labels) == {"rare": 10, "common": 90}
    assert not set(data.train.inputs["text"]) & set(data.evaluation.inputs["text"])


def test_split_depends_on_its_seed_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    rows: list[tuple[str, ...]] = [(f"text number {n}", "ab"[n % 2]) for n in range(100)]
    shuffled = random.Random(1).sample(rows, len(rows))
    first = load(tmp_path, rows)
    assert set(load(tmp_path, shuffled).evaluation.inputs["text"]) == set(first.evaluation.inputs["text"])
    assert set(load(tmp_path, rows, split_seed=1).evaluation.inputs["text"]) != set(first.evaluation.inputs["text"])


def test_split_is_the_same_for_ever() -> None:
    """Pinned: a changed hold-out would make old and new results look comparable."""
    taken, rest = stratified_split(examples(["a", "b"] * 6), range(12), 4, seed=0)
    assert taken == [5, 6, 8, 9]
    assert sorted(taken + rest) == list(range(12))


def test_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    rows = [(f"Text  number {n % 30}" if n < 60 else f"text number {n % 30}", "ab"[n % 2]) for n in range(120)]
    data = load(tmp_path, rows)
    normal = [
        {" ".join(text.lower().split()) for text in side.inputs["text"]} for side in (data.train, data.evaluation)
    ]
    assert normal[1] and not normal[0] & normal[1]


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    rows = [(f"text {n}", "ab"[n % 2], f"author {n // 7}") for n in range(210)]
    data = load(tmp_path, rows, "text,label,author", group="author")
    assert data.evaluation.groups and not set(data.train.groups) & set(data.evaluation.groups)
    assert 35 <= len(data.evaluation) <= 42


def test_a_group_too_large_for_the_share_is_passed_over() -> None:
    groups = ["big"] * 90 + [f"small {n}" for n in range(10)]
    for seed in range(5):
        taken, _ = stratified_split(examples(["a"] * 100, groups), range(100), 5, seed)
        assert len(taken) == 5
        assert min(taken) >= 90


def test_every_label_with_two_groups_is_held_out() -> None:
    taken, rest = stratified_split(examples(["common"] * 100 + ["rare"] * 2), range(102), 10, seed=0)
    labels = ["common"] * 100 + ["rare"] * 2
    assert {labels[row] for row in taken} == {labels[row] for row in rest} == {"common", "rare"}


def test_evaluation_file_and_labels_in_order(tmp_path: Path) -> None:
    rows = [(f"text {n}", str(n % 11)) for n in range(55)]
    held_out = write(tmp_path / "held.csv", [("other", "10"), ("more", "2")])
    data = load(tmp_path, rows, evaluation=held_out)
    assert data.targets["classes"] == [str(n) for n in range(11)]
    assert data.evaluation.labels == ["10", "2"]
    assert len(data.train) == 55


def test_a_file_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("".join(f"a film like many others {n},{'ab'[n % 2]}\n" for n in range(50)))
    with pytest.raises(UserError, match=r"are no names of columns\. .* data\.columns: \[text, label\]"):
        load_data(TextClassification(), LabelledTextData(train=str(path), text="a film like many others 0", label="a"))
    data = load_data(TextClassification(), LabelledTextData(train=str(path), columns=["text", "label"]))
    assert len(data.train) + len(data.evaluation) == 50
    assert (
        load_file(
            path,
            TextClassification(),
            LabelledTextData(train="x.csv", columns=["text", "label"]),
            {"classes": ["a", "b"]},
        ).labels[0]
        == "a"
    )


def test_a_label_column_named_like_a_label_is_told(tmp_path: Path) -> None:
    rows: list[tuple[str, ...]] = [(f"text {n}", ("spam", "ham")[n % 2]) for n in range(40)]
    with pytest.warns(UserWarning, match="data.label = 'spam': the name of the column is one of its labels") as caught:
        assert len(load(tmp_path, rows, "Text of the mail,spam", text="Text of the mail", label="spam").train) == 32
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="one of its labels"):
        load(tmp_path, rows, "text 99,spam", text="text 99", label="spam")


def test_columns_numbered_by_pandas(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows: list[tuple[str, ...]] = [(f"text {n}", "01"[n % 2]) for n in range(40)]
    assert len(load(tmp_path, rows, "0,1", text="0", label="1").train) == 32
    assert not recwarn


def test_pairs(tmp_path: Path) -> None:
    rows = [(f"one {n}", f"two {n}", "ab"[n % 2]) for n in range(20)]
    data = load(tmp_path, rows, "first,second,label", text="first", text_pair="second")
    assert data.train.inputs["text_pair"][0] == data.train.inputs["text"][0].replace("one", "two")


def test_file_with_the_columns_of_a_recipe(tmp_path: Path) -> None:
    section = LabelledTextData(train="unused.csv", text="t", label="l")
    path = write(tmp_path / "more.csv", [("a", "no")], "t,l")
    assert load_file(path, TextClassification(), section, {"classes": ["no", "yes"]}).labels == ["no"]
    with pytest.raises(UserError, match="the label 'no' is not in the training data, which has 'No', 'yes'"):
        load_file(path, TextClassification(), section, {"classes": ["No", "yes"]})


@pytest.mark.parametrize(
    ("rows", "section", "message"),
    [
        ([("a", "x"), ("b", "x"), ("c", "x")], {}, "every row of {file} has the label 'x'"),
        ([(f"text {n}", f"{n}.5") for n in range(60)], {}, "60 different labels in 60 rows"),
        ([("a", "x"), ("b", "y")], {}, "no example of the label"),
        ([("a", "x"), ("b", "")], {}, "data.label = 'label': 1 of 2 rows of {file} have nothing there (line 3)"),
        ([("a", "x"), ("b", "y")], {"text": "review"}, "data.text = 'review': {file} has no such column"),
        (
            [(f"text {n}", "ab"[n % 2]) for n in range(20)],
            {"train_examples": 50},
            "data.train_examples = 50: only 16 are left",
        ),
        ([(f"text {n}", "ab"[n % 2]) for n in range(20)], {"evaluation_examples": 20}, "leave 0 to train on"),
    ],
)
def test_data_that_does_not_work(
    tmp_path: Path, rows: list[tuple[str, ...]], section: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, rows, **section)
    assert message.format(file=tmp_path / "x.csv") in str(caught.value)


def test_label_only_in_the_evaluation_file(tmp_path: Path) -> None:
    held_out = write(tmp_path / "held.csv", [("a", "Positive")])
    with pytest.raises(UserError, match=r"held\.csv: the label 'Positive' is not in the training data"):
        load(tmp_path, [(f"text {n}", ("negative", "positive")[n % 2]) for n in range(20)], evaluation=held_out)


def test_label_names_sort_whole_numbers_by_value() -> None:
    assert label_names(["10", "9", "-1"] * 5, "x", "label") == ["-1", "9", "10"]
    assert label_names(["no", "2", "10"] * 5, "x", "label") == ["2", "10", "no"]
