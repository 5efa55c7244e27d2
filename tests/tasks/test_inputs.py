"""What a task reads to predict on: rows without labels, and what is typed."""

from __future__ import annotations

from typing import Any

import pytest

from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.task import Task
from structune.tasks.text_classification import TextClassification

TASK = TextClassification()


def data(**options: Any) -> LabelledTextData:
    return LabelledTextData(train="reviews.csv", **options)


def test_inputs_need_no_column_of_labels_and_groups() -> None:
    table = Table("new.csv", {"number": ["7", "8"], "review": ["fine", "fine"]}, [2, 3])
    seen = TASK.inputs(table, data(text="review", label="verdict", group="film"))
    assert seen.inputs == {"text": ["fine", "fine"]} and seen.labels is None
    assert len(seen) == 2 and len(seen.subset([1])) == 1


def test_inputs_are_those_of_examples() -> None:
    table = Table("both.csv", {"text": ["good", "bad"], "other": ["a", "b"], "label": ["x", "y"]}, [2, 3])
    for section in (data(), data(text_pair="other")):
        assert TASK.inputs(table, section).inputs == TASK.examples(table, section).inputs


def test_inputs_name_the_row_without_a_text() -> None:
    table = Table("new.csv", {"text": ["fine", " ", "poor"]}, [2, 3, 4])
    with pytest.raises(UserError, match=r"data\.text = 'text': 1 of 3 rows of new\.csv have nothing there \(line 3\)"):
        TASK.inputs(table, data())


def test_lines_are_texts() -> None:
    section = data(text="review")
    assert TASK.inputs(TASK.from_lines(["one, two", "three"], section), section).inputs["text"] == ["one, two", "three"]


def test_lines_are_no_pairs() -> None:
    with pytest.raises(UserError, match="give a file with the columns 'text' and 'answer'"):
        TASK.from_lines(["one"], data(text_pair="answer"))


def test_a_task_may_predict_nothing() -> None:
    section, table = data(), Table("new.csv", {"text": ["fine"]}, [2])
    with pytest.raises(UserError, match="'text-classification': reads no examples without labels"):
        Task.inputs(TASK, table, section)
    with pytest.raises(UserError, match="give a file with its columns"):
        Task.from_lines(TASK, ["fine"], section)
