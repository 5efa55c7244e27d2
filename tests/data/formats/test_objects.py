"""JSON arrays and nested fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from structune.data.reading import read_table
from structune.errors import UserError

ROWS = [{"doc": {"body": "one, {two}]"}, "label": {"name": "a"}}, {"doc": {"body": "\u2028 ["}, "label": {"name": "b"}}]


def write(tmp_path: Path, content: str, name: str = "x.json") -> Path:
    (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv"])
def test_an_array_of_objects(tmp_path: Path, indent: int | None, name: str) -> None:
    content = json.dumps(ROWS, indent=indent, ensure_ascii=False)
    table = read_table(write(tmp_path, content, name), "train")
    assert table.column("doc.body", "text") == ["one, {two}]", "\u2028 ["]
    assert table.column("label.name", "label") == ["a", "b"]
    starts = [content[: content.index('{"doc"' if indent is None else "{\n")].count("\n") + 1] * 2
    if indent is not None:
        starts[1] = 1 + content[: content.rindex("{", 0, content.rindex('"doc"'))].count("\n")
    assert table.lines == starts


def test_json_lines_with_fields_inside(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(map(json.dumps, ROWS)), "x.jsonl")
    assert read_table(path, "train").column("label.name", "label") == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "an empty array, without a row"),
        ("[1, 2]", "line 1: not an object but '1'"),
        ('[\n{"a": 1},\n[2]]', "line 3: not an object but '[2]'"),
        ('[\n{"a": 1},\n{"b": 2}]', "line 3: the keys ['b'] differ from the first object's ['a']"),
        ('[\n{"a": 1}\n{"a": 2}]', "line 3: an array of objects needs a comma or ] here"),
        ('[\n{"a": 1},\n{"a": }]', "line 3: not JSON"),
        ('[\n{"a": 1},\n', "line 3: not JSON"),
        ('[{"a": 1}]\n[{"a": 2}]', "line 2: one array of objects, then '[{\"a\": 2}]'"),
    ],
)
def test_arrays_that_do_not_work(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_table(write(tmp_path, content), "train")
    assert message in str(caught.value)


def test_keys_are_no_columns_to_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.columns is for files without a header; JSON has keys\. Remove it\."):
        read_table(write(tmp_path, '[{"a": 1}]'), "train", columns=["a"])


def test_csv_whose_first_cell_is_an_array_stays_csv(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "[{1}],x\na,b\n", "x.csv"), "train")
    assert table.columns == {"[{1}]": ["a"], "x": ["b"]}
