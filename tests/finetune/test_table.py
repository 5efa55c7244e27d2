"""Files to columns, and what is said of files that do not work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from structune.finetune.data.table import Table, read_table
from structune.finetune.errors import UserError


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_with_quotes_breaks_and_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufefftext,label\r\n"one, ""two""\nthree",a\r\n\r\nfour,b\r\n'
    table = read_table(write(tmp_path, "x.csv", text), "train")
    assert table.columns == {"text": ['one, "two"\nthree', "four"], "label": ["a", "b"]}
    assert table.lines == [2, 5]


def test_tsv_keeps_quotes(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "x.tsv", 'text\tlabel\n"half a quote\t1\n'), "train")
    assert table.columns["text"] == ['"half a quote']


def test_json_lines_with_any_scalar(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028separator", "label": 1, "more": None}, {"text": "b", "label": True, "more": 2.5}]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    table = read_table(write(tmp_path, "x.jsonl", content), "train")
    assert table.columns == {"text": ["line\u2028separator", "b"], "label": ["1", "true"], "more": ["", "2.5"]}


def test_separator_given(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "x.txt", "text;label\na,b;1\n"), "train", ";")
    assert table.columns == {"text": ["a,b"], "label": ["1"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "the file is empty"),
        ("x.csv", "text,label\n", "a header and no rows"),
        ("x.csv", "text;label\na;1\n", "it looks separated by ';'. Set data.separator to ';'"),
        ("x.csv", "text\tlabel\na\t1\n", "it looks separated by a tab. Set data.separator to '\\t'"),
        ("x.tsv", "text,label\na,1\n", "it looks separated by ','"),
        ("x.csv", "text,label,text\na,1,b\n", "the header names 'text' more than once"),
        ("x.csv", "text,label\na,1\nb, c,2\n", "line 3: 3 fields where the header has 2"),
        ("x.csv", 'text,label\n"a,1\nb,2\n', "row starting on line 2: unexpected end of data"),
        ("x.csv", "text,label\na,1\ncaf\xe9,2\n".encode("latin-1"), "line 3: not UTF-8 (byte 0xe9). Save it as UTF-8"),
        ("x.csv", "text,label\na,1\n".encode("utf-16"), "not UTF-8"),
        ("x.csv", "text,label\na,1\n".encode("utf-16-le"), "zero bytes"),
        ("x.xlsx", "PK", "cannot tell the kind of file from its ending '.xlsx'"),
        ("x.jsonl", '{"text": "a"}\n{"text": "b"\n', "line 2: not JSON"),
        ("x.jsonl", "[1, 2]\n", "line 1: not an object"),
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: the keys ['text'] differ"),
    ],
)
def test_files_that_do_not_work(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        read_table(path, "train")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_names_a_near_one(tmp_path: Path) -> None:
    write(tmp_path, "reviews.csv", "x")
    with pytest.raises(
        UserError, match=r"data\.train = '.*review\.csv': no such file \(did you mean 'reviews\.csv'\?\)"
    ):
        read_table(tmp_path / "review.csv", "train")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="that is a folder"):
        read_table(tmp_path, "evaluation")


def test_wrong_column_lists_those_there() -> None:
    table = Table("x.csv", {"review": ["a"], "sentiment": ["1"]}, [2])
    with pytest.raises(UserError) as caught:
        table.column("reviews", "text")
    assert "data.text = 'reviews': x.csv has no such column (did you mean 'review'?)" in str(caught.value)
    assert "it has 'review', 'sentiment'" in str(caught.value)


def test_empty_entries_are_told_by_line() -> None:
    table = Table("x.csv", {"label": ["a", " ", "b", ""]}, [2, 3, 4, 7])
    with pytest.raises(UserError, match=r"2 of 4 rows of x\.csv have nothing there \(line 3, 7\)"):
        table.column("label", "label")
