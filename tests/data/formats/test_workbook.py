"""Excel workbooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pytest

from structune.data.reading import read_table
from structune.errors import UserError


def write(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


ROWS = [["text", "stars"], ["a, b\nc", 1], [None, None], ["7", 2.5], ["d", True]]


def test_a_sheet_with_a_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "x.xlsx", one=ROWS, nothing=[]), "train")
    assert table.columns == {"text": ["a, b\nc", "7", "d"], "stars": [1, 2.5, True]}
    assert (table.lines, table.unit) == ([2, 4, 5], "row")
    assert table.column("stars", "label") == ["1", "2.5", "true"]


def test_sheets_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", train=ROWS, more=[["text"], ["z"]], nothing=[])
    assert read_table(path, "train", sheet="more").columns == {"text": ["z"]}
    for sheet, message in (
        (None, "a workbook of 2 sheets; set data.sheet to one of 'train', 'more'"),
        ("mre", "no such sheet (did you mean 'more'?); it has 'train', 'more', 'nothing'"),
        ("nothing", "the sheet 'nothing' is empty"),
    ):
        with pytest.raises(UserError) as caught:
            read_table(path, "train", sheet=sheet)
        assert message in str(caught.value)


def test_as_pandas_writes_it_with_an_index(tmp_path: Path) -> None:
    pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_excel(tmp_path / "x.xlsx")
    table = read_table(tmp_path / "x.xlsx", "train")
    assert table.columns == {"column 1": [0, 1], "text": ["a", "b"], "label": [0, 1]}


def test_cells_that_hold_nothing_do_not_widen_the_table(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", one=[["text", " ", None], ["a", "", None]])
    assert read_table(path, "train").columns == {"text": ["a"]}


def test_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", one=ROWS[1:])
    assert read_table(path, "train", columns=["text", "n"]).columns["n"] == [1, 2.5, True]
    with pytest.raises(UserError, match=r"1 names, but .* has 2 columns \(the first row: 'a, b\\nc', '1'\)"):
        read_table(path, "train", columns=["text"])
    with pytest.raises(UserError, match=r"Its first line looks like a row"):
        read_table(path, "train").column("text", "text")


def test_what_does_not_work(tmp_path: Path) -> None:
    for rows, message in (
        ([["text", "text"], ["a", "b"]], "the header names 'text' more than once"),
        ([["text", "label"]], "a header and no rows"),
        ([], "the workbook is empty"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(write(tmp_path / "x.xlsx", one=rows), "train")
