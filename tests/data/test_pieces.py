"""Rows some at a time are the rows of the whole file, whatever the kind of file and wherever it is cut."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from structune.data import pieces
from structune.data.pieces import cut, file_pieces, is_data_file, line_pieces
from structune.data.sources import load_file
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.text.texts import LabelledTextData

SECTION = LabelledTextData(train="x.csv")
ROWS = [
    {"n": n, "text": text, "note": note}
    for n, (text, note) in enumerate(
        [("plain", "a"), ('with "quotes"', "b, c"), ("two\nlines", ""), ("Ünï ", "tab\there"), ("last", "e")] * 5
    )
]


def written(kind: str, folder: Path) -> Path:
    path = folder / f"rows{kind}"
    if ".jsonl" in kind:
        content = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()
    elif ".parquet" in kind:
        pandas.DataFrame(ROWS).to_parquet(path)
        return path
    else:
        text = io.StringIO()
        table = csv.DictWriter(text, list(ROWS[0]), delimiter="\t" if ".tsv" in kind else ",", lineterminator="\r\n")
        table.writeheader()
        table.writerows(ROWS)
        content = text.getvalue().encode("utf-16" if "16" in kind else "utf-8-sig" if "mark" in kind else "utf-8")
    path.write_bytes(
        gzip.compress(content) if kind.endswith("gz") else bz2.compress(content) if "bz2" in kind else content
    )
    return path


def joined(found: list[Table]) -> tuple[dict[str, list[Any]], list[int], set[str]]:
    columns = {name: [cell for table in found for cell in table.columns[name]] for name in found[0].columns}
    return columns, [line for table in found for line in table.lines], {table.unit for table in found}


@pytest.mark.parametrize(
    "kind", [".csv", ".mark.csv", ".16.csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz", ".csv.bz2"]
)
@pytest.mark.parametrize("rows", [3, 100])
def test_large_files_are_read_in_pieces(kind: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read whole is the oracle; where rows begin is told too, over line breaks in texts."""
    path = written(kind, tmp_path)
    whole = load_file(path, SECTION)
    monkeypatch.setattr(pieces, "_LARGE", 10)
    monkeypatch.setattr(pieces, "load_file", lambda *_: pytest.fail("read whole"))
    found = list(file_pieces(str(path), SECTION, rows))
    assert [len(table) for table in found] == ([3] * 8 + [1] if rows == 3 else [25])
    assert joined(found) == (whole.columns, whole.lines, {whole.unit})
    assert [str(cell) for cell in whole.columns["n"]] == [str(n) for n in range(25)]
    assert whole.columns["text"][2].replace("\r", "") == "two\nlines"


def test_small_files_are_read_whole_and_cut(tmp_path: Path) -> None:
    path = written(".csv", tmp_path)
    assert joined(list(file_pieces(str(path), SECTION, 4)))[0] == load_file(path, SECTION).columns
    table = Table("several", {"text": list("abcde")}, [1, 2, 1, 2, 3], files=["x", "x", "y", "y", "y"])
    assert [(each.columns["text"], each.files) for each in cut(table, 2)] == [
        (["a", "b"], ["x", "x"]),
        (["c", "d"], ["y", "y"]),
        (["e"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"text,b\nx,1\ny,2\nz\n", r"a\.csv, line 4: 1 fields where the header has 2"),
        ("a.csv", b'text,b\nx,1\n"y,2\nz,3\n', r"row starting on line 3: .* double quote that is not closed"),
        ("a.csv", b"text,b\nx,1\n\xff,2\n", r"a\.csv': not utf-8 everywhere"),
        ("a.csv", b"text;b\nx;1\n", r"looks separated by ';'\. Set data\.separator"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": 2}\n{"b": 3}\n',
            r"line 3: the keys \['b'\] differ from the first object's \['a'\]",
        ),
        ("a.jsonl", b'{"a": 1}\n{"a": 2}\n[3]\n', r"line 3: not an object"),
        (
            "a.csv.gz",
            gzip.compress(b"text\n" + b"x y z\n" * 99, mtime=0)[:-9],
            r"a\.csv\.gz': cannot be read to its end",
        ),
        ("a.parquet", b"PAR1 and then nothing of the kind", r"a\.parquet: a Parquet file, and damaged"),
    ],
)
def test_mistakes_in_large_files_are_told(
    name: str, content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(pieces, "_LARGE", 10)
    with pytest.raises(UserError, match=said) as told:
        list(file_pieces(str(tmp_path / name), SECTION, 2))
    assert "data.rows" not in str(told.value)


def test_no_more_is_read_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose end is broken gives its first rows: they were there before the end was looked at."""
    path = tmp_path / "long.csv"
    path.write_bytes(b"text\n" + b"row\n" * 400_000 + b"too,many\n")
    monkeypatch.setattr(pieces, "_LARGE", 10)
    found = file_pieces(str(path), SECTION, 5)
    assert next(found).columns == {"text": ["row"] * 5}
    with pytest.raises(UserError, match="line 400002: 2 fields"):
        list(found)


def test_names_of_files_are_told_from_texts() -> None:
    names = ["a.csv", "a.CSV.gz", "b.jsonl", "c.parquet", "d.json", "e.xlsx", "f.csv.zst"]
    assert all(is_data_file(name, SECTION) for name in names)
    texts = ["a fine film", "Good. Very good.", "x" * 5000, "photo.png", ""]
    assert not any(is_data_file(text, SECTION) for text in texts)


def test_objects_and_lines_keep_their_places() -> None:
    def table_of(lines: Any) -> Table:
        return Table("typed", {"text": list(lines)}, list(range(len(lines))))

    def read(*lines: bytes) -> list[Table]:
        stream: Iterator[bytes] = iter(lines)
        return list(line_pieces(stream, "stdin", 2, table_of))  # type: ignore[arg-type]  # iterated only

    objects = read(b"\n", b'{"a": 1}\n', b"\n", b'{"a": 2}\n', b'{"a": null}\n')
    assert joined(objects) == ({"a": [1, 2, None]}, [2, 4, 5], {"line"})
    plain = read("\ufeffone\r\n".encode(), b"two\n", b"[3]\n", b"\n", b"\n")
    assert joined(plain) == ({"text": ["one", "two", "[3]"]}, [1, 2, 3], {"line"})
    assert {table.source for table in plain} == {"stdin"}
