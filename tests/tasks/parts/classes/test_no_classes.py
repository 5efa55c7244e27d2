"""Labels that are no classes are refused, with a fix that works; names that only look like them are classes."""

from __future__ import annotations

import csv
import re
import warnings
from itertools import cycle, islice
from pathlib import Path

import pandas
import pytest

from structune.errors import UserError
from structune.finetune.task_data import load_data
from structune.tasks.multi_label_classification import MultiLabelClassification, MultiLabelData
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.text_classification import TextClassification
from structune.tasks.text_regression import TextRegression

SEVERAL: list[tuple[list[str], str]] = [
    (["[4, 27]", "[4]", "[27]"], "4"),
    (["['joy', 'anger']", "['joy']"], "joy"),
    (['["very good", "x"]', '["x"]'], "very good"),
    (["['joy' 'anger']", "['joy']"], "joy"),
    (["(1, 2)", "(2,)"], "1"),
    (["{'a', 'b'}", "{'b'}"], "a"),
    (["[joy, anger]", "[joy]"], "joy"),
    (["[]", "[1]"], ""),
    (["joy|anger", "joy", "anger"], "joy"),
    (["a | b", "b | c", "a | c"], "a"),
    (["joy;anger", "joy", "anger"], "joy"),
    (["joy, anger", "anger", "joy", "fear"], "joy"),
    (["4,27", "4", "27", "4,27,3", "3"], "4"),
    (["[0, 1, 1]", "[0, 1, 0]"], "1"),
    (["0 1 1", "1 0 0"], "1"),
    (["0.0,1.0,1.0", "1.0,0.0,0.0"], "1"),
    (["011", "010"], "1"),
    (["101", "011", "110"], "0"),
]
CLASSES = [
    ["0", "1"], ["0.0", "1.0"], ["1", "2", "3", "4", "5"], ["-1", "0", "1"], [str(n / 2) for n in range(11)],
    ["1.1", "1.2", "2.1"], [str(n) for n in range(77)], ["A, B", "C, D"], ["A", "B", "C, D"], ["A|B", "C"],
    ["food|good", "food|bad", "service|good", "service|bad"], ["sports", "sports;tennis", "arts", "arts;film"],
    ["[4]", "[27]"], ["(unknown)", "known (sure)"], ["[PAD]", "{x}"], ["0 1 0", "1 0 0"], ["R&B", "R", "B"],
    ["good", "very good"], ["Paris, Texas", "Texas", "Lyon"], ["C++", "C#", "C"], ["100", "101", "110"],
    ["0/10", "5/10", "10/10"], ["25%", "50%", "75%"], ["5%", "5/10", "half"],
]  # fmt: skip


def write(tmp_path: Path, labels: list[str], rows: int = 400) -> Path:
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((f"text {n}", label) for n, label in enumerate(islice(cycle(labels), rows)))]
        )
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_data(TextClassification(), LabelledTextData(train=str(path)))
    return str(caught.value)


def follow(message: str, path: Path) -> pandas.DataFrame:
    """The file with the column that the message says how to make."""
    found = re.search(r"with pandas (df\[.*?\] = .*?)(?:, and set data\.label|\.$)", message)
    assert found is not None
    df = pandas.read_csv(path, dtype=str)
    exec(found[1], {"df": df, "pandas": pandas})
    return df


@pytest.mark.parametrize(("labels", "first"), SEVERAL, ids=lambda value: str(value)[:20])
def test_lists_are_refused_and_the_advice_makes_classes(tmp_path: Path, labels: list[str], first: str) -> None:
    path = write(tmp_path, labels)
    message = refusal(path)
    assert f"rows of {path} hold lists of labels (" in message
    assert "`task: multi-label-classification`" in message
    assert repr(labels[0]) in message
    assert str(follow(message, path)["class"][0]) == first


@pytest.mark.parametrize("comma", [False, True])
def test_scores_are_refused_and_the_advice_makes_classes(tmp_path: Path, comma: bool) -> None:
    scores = [f"{n * 37 % 51 / 10:.1f}" for n in range(51)]
    path = write(tmp_path, [score.replace(".", ",") if comma else score for score in scores])
    message = refusal(path)
    assert f"51 different labels in 400 rows of {path}" in message
    assert "`task: text-regression`" in message
    numbers = load_data(TextRegression(), LabelledTextData(train=str(path)))
    assert set(numbers.train.labels or []) <= {float(score) for score in scores}
    assert "numbers on a scale, not classes" in message
    df = pandas.read_csv(path, dtype=str)
    df["label"] = df["label"] if comma else df["label"].astype(float)
    df.to_csv(path, index=False)
    table = pandas.read_csv(path)
    code = message.split("with pandas ")[1].split(", and set")[0]
    exec(code, {"df": table, "pandas": pandas})
    assert set(table["class"]) == {"low", "middle", "high"}


@pytest.mark.parametrize("unit", ["%", " %", "/10", " / 10"])
def test_scores_with_a_unit_are_refused_and_the_advice_makes_classes(tmp_path: Path, unit: str) -> None:
    path = write(tmp_path, [f"{n * 37 % 51 / 10:.1f}{unit}" for n in range(51)])
    message = refusal(path)
    assert "numbers on a scale, not classes" in message
    assert set(follow(message, path)["class"]) == {"low", "middle", "high"}


@pytest.mark.parametrize("unit", ["", "%", "/100"])
def test_many_whole_numbers_are_doubted_in_any_unit(tmp_path: Path, unit: str) -> None:
    path = write(tmp_path, [f"{n}{unit}" for n in range(50)])
    with pytest.warns(UserWarning, match=f"50 classes, all whole numbers from 0{unit} to 49{unit}: not scores"):
        load_data(TextClassification(), LabelledTextData(train=str(path)))


def test_a_few_scores_are_refused_too(tmp_path: Path) -> None:
    assert "numbers on a scale" in refusal(write(tmp_path, ["0.31", "0.52", "0.18", "0.97"], rows=4))


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_the_separator_that_is_named_makes_lists(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path, [f"joy{separator}anger", "joy", "anger"])
    found = re.search(r"`task: multi-label-classification` with data.label_separator = '(.)'", refusal(path))
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows are alike
        data = load_data(MultiLabelClassification(), MultiLabelData(train=str(path), label_separator=found[1]))
    assert data.targets["classes"] == ["anger", "joy"]


def test_a_column_of_zeros_and_ones_for_each_label(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = "".join(f"text {n},{int(n % 3 == 0)},{int(n % 3 == 1)},{int(n % 3 == 2)}\n" for n in range(60))
    path.write_text(f"text,joy,anger,fear\n{rows}")
    message = refusal(path)
    assert "has no such column, but 3 columns of 0 and 1 ('joy', 'anger', 'fear')" in message
    assert "`task: multi-label-classification` and data.labels to these columns" in message
    df = pandas.read_csv(path)
    exec(message.split("with pandas ")[1].rstrip("."), {"df": df})
    assert list(df["label"][:3]) == ["joy", "anger", "fear"]
    with pytest.warns(UserWarning, match="'anger', 'fear' of .* are columns of 0 and 1 too; only 'joy' is trained"):
        data = load_data(TextClassification(), LabelledTextData(train=str(path), label="joy"))
    assert data.targets["classes"] == ["0", "1"]


@pytest.mark.parametrize("labels", CLASSES, ids=lambda labels: ",".join(labels)[:30])
def test_names_that_look_similar_are_classes(tmp_path: Path, labels: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are doubted
        data = load_data(TextClassification(), LabelledTextData(train=str(write(tmp_path, labels))))
    assert set(data.targets["classes"]) == set(labels)
