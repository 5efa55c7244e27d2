"""What trains but is hardly meant is told with counts, and nothing is said of sound data."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from structune.data.examples import Examples
from structune.doubt import DataWarning, say
from structune.finetune.task_data import load_data, load_file
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.texts import LabelledTextData, doubts_about_cuts, load_tokenizer
from structune.tasks.task import Base
from structune.tasks.text_classification import TextClassification

Rows = Sequence[tuple[str, str]]
SOUND = [(f"text number {n}", "ab"[n % 2]) for n in range(200)]


def write(path: Path, rows: Rows) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


def doubts(tmp_path: Path, rows: Rows, evaluation: Rows | None = None, **section: Any) -> list[str]:
    files = {"train": write(tmp_path / "x.csv", rows)}
    if evaluation is not None:
        files["evaluation"] = write(tmp_path / "e.csv", evaluation)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_data(TextClassification(), LabelledTextData(**files, **section))
    assert all(one.category is DataWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


def test_sound_data_are_not_doubted(tmp_path: Path) -> None:
    assert doubts(tmp_path, SOUND) == []
    assert doubts(tmp_path, SOUND, [(f"another text {n}", "ab"[n % 2]) for n in range(20)]) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [(text, label if n % 4 else label.upper()) for n, (text, label) in enumerate(SOUND)],
            ["data.label = 'label': 'A' (50), 'a' (50) differ only in case or spaces, and are trained as 2 classes"],
        ),
        (
            [(text, "a" if n % 2 else "a\u200b") for n, (text, _) in enumerate(SOUND[:100])] + SOUND[101:200:2],
            ["data.label = 'label': 'a' (50), 'a\\u200b' (50) differ only in characters that cannot be seen, and are "
             "trained as 2 classes"],
        ),
        (
            [(text, "very good" if n % 3 else "very  good") for n, (text, _) in enumerate(SOUND[:150])] + SOUND[150:],
            ["data.label = 'label': 'very  good' (50), 'very good' (100) differ only in case or spaces, and are "
             "trained as 2 classes"],
        ),
        (
            [(text, ("Caf\u00e9", "Cafe\u0301")[n % 2]) for n, (text, _) in enumerate(SOUND)],
            ["data.label = 'label': 'Cafe\u0301' (100), 'Caf\u00e9' (100) differ only in case or spaces, and are "
             "trained as 2 classes"],
        ),
        (
            [(text, ("1", "1.0", "0")[n % 3]) for n, (text, _) in enumerate(SOUND[:150])],
            ["data.label = 'label': '1' (50), '1.0' (50) are one number, and are trained as 2 classes"],
        ),
        (
            [(text, ("joy/anger", "joy", "anger")[n % 3]) for n, (text, _) in enumerate(SOUND[:150])],
            ["data.label = 'label': 50 rows have labels made of others, each a class ('joy/anger')"],
        ),
        (
            [*SOUND, ("nan", "a"), ("NaN", "a"), ("NaN", "a"), ("N/A", "a"), ("null", "a"), ("None", "a")],
            ["data.text = 'text': 6 of 206 rows hold only a word for nothing: 'NaN' (2), 'N/A' (1), 'None' (1), "
             "'nan' (1), 'null' (1)"],
        ),
        (
            [(text, "None" if n % 2 else "a") for n, (text, _) in enumerate(SOUND)],
            ["data.label = 'label': 100 of 200 rows hold only a word for nothing: 'None' (100)"],
        ),
        (
            [(str(n), label) for n, (_, label) in enumerate(SOUND)],
            ["data.text = 'text': every one of 200 texts is a number, as in an index column (the first: '0')"],
        ),
        (
            [(f"['a', 'list', '{n}']", label) for n, (_, label) in enumerate(SOUND)],
            ["data.text = 'text': every one of 200 texts is a list, trained as written (the first: "
             "\"['a', 'list', '2']\")"],
        ),
        (
            [(f"text number {n}", str(n % 21 - 1)) for n in range(210)],
            ["data.label = 'label': 21 classes, all whole numbers from -1 to 19: not scores?"],
        ),
        (
            [*SOUND, (".", "a"), ("x ", "b")],
            ["data.text = 'text': 2 of 202 texts have one character only"],
        ),
        (
            [*SOUND, ("Text number  0", "b"), ("text number 1", "b")],
            ["1 text occurs with different labels, in 2 rows (the first: 'text number 0' with 'a', 'b')"],
        ),
        (
            [(f"text number {n}", "spam" if n < 3 else "ham") for n in range(303)],
            ["very few examples to train on of 'spam' (2); the largest class has 240",
             "always answering 'ham' is right for 98.4% of the held-out examples: look at macro F1 too"],
        ),
    ],
)  # fmt: skip
def test_each_kind_is_told_with_counts(tmp_path: Path, rows: Rows, expected: list[str]) -> None:
    told = doubts(tmp_path, rows)
    assert sorted(told) == sorted(expected)


def test_rows_on_both_sides(tmp_path: Path) -> None:
    new = [(f"another text {n}", "ab"[n % 2]) for n in range(30)]
    assert doubts(tmp_path, SOUND, SOUND) == [
        "all 200 rows to evaluate on are among those to train on: the accuracy says nothing about new texts"
    ]
    assert doubts(tmp_path, SOUND, [("TEXT number  0", "a"), *SOUND[1:10], *new]) == [
        "10 of 40 rows to evaluate on (25.0%) are among those to train on: the accuracy will be too high"
    ]


def test_a_class_that_is_not_held_out(tmp_path: Path) -> None:
    told = doubts(tmp_path, [*SOUND, *((f"c {n}", "c") for n in range(50))], [("new", "a"), ("newer", "b")])
    assert told == ["nothing to evaluate on of 'c' (50) (counted in training)"]


def test_another_file_to_evaluate_on(tmp_path: Path) -> None:
    path = write(tmp_path / "more.csv", [*((f"t {n}", "a") for n in range(9)), ("null", "b")])
    with pytest.warns(DataWarning) as caught:
        load_file(path, TextClassification(), LabelledTextData(train="x.csv"), {"classes": ["a", "b"]})
    assert [str(one.message) for one in caught] == [
        "data.text = 'text': 1 of 10 rows hold only a word for nothing: 'null' (1)",
        "always answering 'a' is right for 90.0% of the held-out examples: look at macro F1 too",
    ]


def _texts(texts: list[str]) -> Examples:
    return Examples({"text": texts}, ["a"] * len(texts), texts, ["a"] * len(texts))


def test_texts_that_are_cut(tiny_model: Path) -> None:
    base = Base(None, load_tokenizer(ModelSection(name=str(tiny_model))))
    texts = ["good film", "good " * 30, "the " * 14, "a " * 15]
    parts = [_texts(texts), _texts(texts[1:2])]
    expected = r"data\.max_length = 16: 3 of 5 texts are cut after 16 tokens; the longest has 32"
    with pytest.warns(DataWarning, match=expected):
        say(doubts_about_cuts(parts, base, LabelledTextData(train="x.csv", max_length=16)))
    pair = Examples({"text": ["a " * 40], "text_pair": ["a " * 29]}, ["x"], ["x"], ["x"])
    with pytest.warns(DataWarning, match="128: 1 of 1 texts are cut after 64 tokens; the longest has 72"):
        say(doubts_about_cuts([pair], base, LabelledTextData(train="x.csv", text_pair="text_pair")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say(doubts_about_cuts(parts, base, LabelledTextData(train="x.csv", max_length=32)))


def test_of_very_many_long_texts_a_sample_is_counted(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structune.tasks.parts.text.texts._SAMPLE", 10)
    base = Base(None, load_tokenizer(ModelSection(name=str(tiny_model))))
    texts = ["good " * (20 + n) for n in range(95)] + ["good"] * 5
    with pytest.warns(DataWarning, match="about 95 of 100 texts are cut after 16 tokens; the longest has 116"):
        say(doubts_about_cuts([_texts(texts)], base, LabelledTextData(train="x.csv", max_length=16)))
