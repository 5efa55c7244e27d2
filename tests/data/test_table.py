"""Files to columns, and what is said of files that do not work."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas
import pytest

from structune.data.reading import read_table
from structune.data.table import Table
from structune.errors import UserError


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return content.getvalue()


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
    assert table.columns == {"text": ["line\u2028separator", "b"], "label": [1, True], "more": [None, 2.5]}
    assert table.column("label", "label") == ["1", "true"]
    with pytest.raises(UserError, match=r"1 of 2 rows of .* have nothing there \(line 1\)"):
        table.column("more", "text")
    assert table.values("more", "text", allow_empty=True) == [None, 2.5]


def test_separator_in_the_first_line(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "x.csv", "\ufeffsep=;\r\ntext;label\r\na,b;1\r\n"), "train")
    assert (table.columns, table.lines) == ({"text": ["a,b"], "label": ["1"]}, [3])


def test_separator_given(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "x.txt", "text;label\na,b;1\n"), "train", ";")
    assert table.columns == {"text": ["a,b"], "label": ["1"]}


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_in_any_form(tmp_path: Path, name: str) -> None:
    content = "text,label\nnaïve 漢字,1\n".encode(name)
    assert read_table(write(tmp_path, "x.csv", content), "train").columns["text"] == ["naïve 漢字"]


def test_gzip(tmp_path: Path) -> None:
    lines = gzip.compress(b'{"text": "a"}\n', mtime=0)
    assert read_table(write(tmp_path, "x.jsonl.gz", lines), "train").columns == {"text": ["a"]}
    assert read_table(write(tmp_path, "x.tsv.gz", gzip.compress(b"text\na\n", mtime=0)), "train").columns == {
        "text": ["a"]
    }
    with pytest.raises(UserError, match=r"rename it to 'x\.jsonl\.gz'"):
        read_table(write(tmp_path, "x.json.gz", lines), "train")
    with pytest.raises(UserError, match="this is a pickle"):
        read_table(write(tmp_path, "y.csv.gz", gzip.compress(b"\x80\x04\x95", mtime=0)), "train")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_field_of_any_length(tmp_path: Path, name: str) -> None:
    before = csv.field_size_limit()
    separator = "," if name == "x.csv" else "\t"
    table = read_table(write(tmp_path, name, f"text{separator}label\n{'a' * 200_000}{separator}1\n"), "train")
    assert table.columns == {"text": ["a" * 200_000], "label": ["1"]}
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "content",
    [
        'text,label\nfine,good\n"poor film,bad\nlovely,good\nno wonder",bad\n',
        'label,text\ngood,fine\nbad,"poor film\ngood,lovely\nbad,no wonder"\n',
        'text,stars,label\nfine,3,good\n"poor film,1,bad\r\nno wonder",1,bad\r\n',
    ],
)
def test_rows_between_two_stray_quotes_are_told(tmp_path: Path, content: str) -> None:
    with pytest.warns(UserWarning, match="1 texts hold line breaks and what looks like whole rows .*from line 3"):
        read_table(write(tmp_path, "x.csv", content), "train")


def test_quotes_after_a_space_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 fields keep their double quotes, which have a space before them"):
        table = read_table(write(tmp_path, "x.csv", 'text, label\n"a", "x"\nb, "y"\n'), "train")
    assert table.columns["label"] == [' "x"', ' "y"']


def test_texts_of_several_lines_are_not_doubted(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    content = 'text,label\n"Dear all,\nfine, thanks\n\nYours, Ada",good\n"a\nb, not bad at all",bad\n'
    assert len(read_table(write(tmp_path, "x.csv", content), "train").lines) == 2
    assert not recwarn


TEXTS = ['He said "no", twice', '"all of it"', "plain", 'two\nlines, a\ttab and a "quote"', "comma, only", '"', ""]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], ['"all of it"', "plain"], ["two\nlines", "one"]])
def test_tsv_as_pandas_writes_it(tmp_path: Path, texts: list[str], quoting: int) -> None:
    frame = pandas.DataFrame({"text": texts, "label": range(len(texts)), "kind": "a b"})
    frame.to_csv(tmp_path / "x.tsv", sep="\t", index=False, quoting=quoting)
    columns = read_table(tmp_path / "x.tsv", "train").columns
    assert columns["text"] == texts
    assert columns["kind"] == ["a b"] * len(texts)


def test_tsv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    content = 'text\tlabel\r\n"a, b"\t1\r\n"say ""hi"""\t0\r\nplain\t1\r\n'
    assert read_table(write(tmp_path, "x.tsv", content), "train").columns["text"] == ["a, b", 'say "hi"', "plain"]


@pytest.mark.parametrize(
    "texts",
    [
        ['"all of it"', "plain", "other"],
        ['"A" and "B"', '"all, with a comma"', "none"],
        ['5" screen', '"He said ""wow"""'],
        ['"half', 'other half"'],
        ['"a, b"', "c, d", '"e, f"', '"g, h"'],
    ],
)
def test_tsv_with_quotes_of_its_texts(tmp_path: Path, texts: list[str]) -> None:
    content = "text\tlabel\n" + "".join(f"{text}\t{n}\n" for n, text in enumerate(texts))
    assert read_table(write(tmp_path, "x.tsv", content), "train").columns["text"] == texts


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
        ("x.csv", b"text,label\na,1\n" + b"b\0,2\n" + b"c,3\n" * 30, "zero bytes"),
        ("x.csv", "text,label\na,1\n".encode("utf-16")[:-1], "UTF-16, and damaged"),
        ("x.csv", "text;label\na;1,5\nb, c;2\n", "it looks separated by ';'. Set data.separator to ';'"),
        ("x.csv", "text, long;label\na;1\nb;2\n", "The file looks separated by ';': set data.separator to ';'"),
        ("x.txt", "text\tlabel\na\t1\n", "it looks separated by a tab. Set data.separator to '\\t'"),
        ("x.csv", 'label,text\n1, "a, b"\n', "Remove the space between the separator and the double quote"),
        ("x.csv", 'text,label\n"a "b" c",1\n', "or one inside a text that is not doubled"),
        ("x.csv", f'text,label\n"{"a" * 200_000},1\n', "unexpected end of data. Look for a double quote that is not"),
        ("x.jsonl", '{"text": {"0": "a"}}', "x-new.jsonl', orient='records', lines=True)"),
        ("x.json", '{"text": {"0": "a"}}', "holds one JSON object; make JSON Lines of it"),
        (
            "x.json",
            '{"turns": [{"role": "user"}]}',
            "if that is one row, rename it to 'x.jsonl'; if it is a whole table,",
        ),
        ("x.json", '{\n"text": "a"}', "holds one JSON object; make JSON Lines of it"),
        ("x.json", '{"text": "a"}\n{"text": "b"}\n', "holds JSON Lines, one object a line; rename it to 'x.jsonl'"),
        ("x.csv", '{"text": "a, b"}\n', "holds JSON Lines, one object a line; rename it to 'x.jsonl'"),
        ("x.parquet", b"PAR1\x15\x04", "a Parquet file, and damaged"),
        ("x.csv", b"\x89HDF\r\n", "x-new.csv', index=False)"),
        ("x.arrow", b"ARROW1\0\0", "an Arrow file, and damaged"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook; make a CSV file of it, with pandas"),
        ("x.pkl", b"\x80\x04\x95", "this is a pickle"),
        ("x.csv.bz2", b"BZh91AY", "compressed with bzip2, and damaged"),
        ("x.csv.gz", gzip.compress(b"text,label\na,1\n", mtime=0)[:-9], "compressed with gzip, and damaged"),
        ("x.csv", b"\n<!DOCTYPE html>", "this is a web page"),
        ("x.csv", "version https://git-lfs.github.com/spec/v1\noid 1", "git lfs pull"),
        ("x.csv", bytes(range(256)) * 9, "this is a binary file, not a text"),
        ("x.csv", bytes(range(32)) * 9, "this is a binary file, not a text"),
        ("x.csv", zipped("xl/workbook.xml"), "an Excel workbook, and damaged"),
        ("x.csv", zipped("content.xml"), "this is an OpenDocument file"),
        ("x.zip", zipped("a.csv", "b.csv"), "this is a zip archive of 'a.csv', 'b.csv'; unpack it"),
        ("x.csv", b"PK\x03\x04", "a zip archive or a workbook, and damaged"),
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


@pytest.mark.parametrize("row", [{"messages": [{"role": "user"}]}, {"tokens": ["a", "b"], "about": {"lang": "en"}}])
def test_one_row_of_lists_is_a_row(tmp_path: Path, row: dict[str, Any]) -> None:
    """By the file's ending: a table in one object, as pandas writes it, has the numbers of its rows."""
    table = read_table(write(tmp_path, "x.jsonl", json.dumps(row)), "train")
    assert table.columns == {name: [value] for name, value in row.items()}
    assert table.lines == [1]


def test_missing_file_names_a_near_one(tmp_path: Path) -> None:
    write(tmp_path, "reviews.csv", "x")
    with pytest.raises(
        UserError, match=r"data\.train = '.*review\.csv': no such file \(did you mean 'reviews\.csv'\?\)"
    ):
        read_table(tmp_path / "review.csv", "train")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "x")
    with pytest.raises(UserError, match=r"that is a folder; name one file in it \(it has 'a\.csv'\)"):
        read_table(tmp_path, "evaluation")


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "too long"), ("a\0b", "null byte")])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"cannot be read .*{reason}"):
        read_table(tmp_path / name, "train")


def test_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "\n1,a b,x\n2,c,y\n")
    table = read_table(path, "train", columns=["number", "text", "label"])
    assert table.columns == {"number": ["1", "2"], "text": ["a b", "c"], "label": ["x", "y"]}
    assert table.lines == [2, 3]
    for names, message in (
        (["text", "label"], "2 names, but the first line of"),
        (["1", "A B", "x "], "its first line is a header already; remove data.columns"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(path, "train", columns=names)
    with pytest.raises(UserError, match=r"JSON Lines have keys\. Remove it"):
        read_table(write(tmp_path, "x.jsonl", '{"text": 1}'), "train", columns=["text"])
    with pytest.raises(UserError, match="looks separated by ','. Set data.separator"):
        read_table(write(tmp_path, "x.tsv", "a,b\n"), "train", columns=["text", "label"])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("I hated it from the start,bad\nlovely,good\nfine,good\nweak,bad\n", "[text, label]"),
        ("bad,awful film\ngood,lovely film\nbad,weak film\n", "[label, text]"),
        ("17,awful film,0\n18,lovely film,1\n19,weak film,0\n20,fine,1\n", "[column1, text, label]"),
        ("ok,ok,0\nfine film,fine film,1\n", "[text, column2, label]"),
        ("1,awful film\n", "[label, text]"),
    ],
)
def test_a_first_line_that_is_a_row_is_told_with_names_that_keep_it(tmp_path: Path, content: str, names: str) -> None:
    path = write(tmp_path, "x.csv", content)
    with pytest.raises(UserError) as caught:
        read_table(path, "train").column("text", "text")
    assert f"If the file has no header, name its columns, and that row is kept: data.columns: {names}" in str(
        caught.value
    )
    table = read_table(path, "train", columns=names.strip("[]").split(", "))
    assert len(table.column("text", "text")) == content.count("\n")


@pytest.mark.parametrize("header", ["Review,Stars", "0,1", ",0"])
def test_a_header_is_not_taken_for_a_row(tmp_path: Path, header: str) -> None:
    table = read_table(write(tmp_path, "x.csv", f"{header}\nawful,0\nfine film,1\nweak,0\n"), "train")
    with pytest.raises(UserError, match=r"it has .*\. Set data\.text to one of them\.$"):
        table.column("text", "text")


def test_spaces_around_a_name_do_not_matter() -> None:
    assert Table("x.jsonl", {" text ": ["a"], "b": ["c"]}, [1]).column("text", "text") == ["a"]
    assert Table("x.jsonl", {"text": ["a"]}, [1]).column("text ", "text") == ["a"]


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


def test_what_cannot_be_seen_is_empty() -> None:
    table = Table("x.csv", {"label": ["a", "\u200b", "\ufeff ", "b\u200b"]}, [2, 3, 4, 5])
    with pytest.raises(UserError, match=r"2 of 4 rows of x\.csv have nothing there \(line 3, 4\)"):
        table.column("label", "label")


def test_names_with_dots_reach_into_what_cells_hold() -> None:
    cells = [{"name": "good", "of": {"x": [1]}}, {"name": "bad", "of": {"x": []}}]
    table = Table("x.jsonl", {"label": cells, "label.kind": ["a", "b"]}, [1, 2])
    assert table.column("label.name", "label") == ["good", "bad"]
    assert table.values("label.of.x", "label") == [[1], []]
    assert table.column("label.of.x", "label") == ["[1]", "[]"]
    assert table.column("label.kind", "label") == ["a", "b"]
    assert "label.of" in table
    assert "label.off" not in table
    with pytest.raises(UserError, match=r"did you mean 'label\.name'.*it has 'label\.name', 'label\.of', 'label'"):
        table.column("label.nam", "label")


def test_what_a_dict_lacks_is_empty() -> None:
    table = Table("x.jsonl", {"label": [{"name": "good"}, {"title": "bad"}, None]}, [1, 3, 4])
    with pytest.raises(UserError, match=r"data\.label = 'label\.name': 2 of 3 rows .* \(line 3, 4\)"):
        table.column("label.name", "label")


def test_cells_that_are_no_text() -> None:
    table = Table("x.parquet", {"image": [{"bytes": b"\x89"}], "raw": [b"a"], "n": [float("nan")]}, [1], unit="row")
    for name in ("image", "raw"):
        with pytest.raises(UserError, match=r"1 of 1 rows of x\.parquet hold bytes there.*\(row 1\)"):
            table.column(name, "text")
    assert table.values("raw", "image") == [b"a"]
    with pytest.raises(UserError, match="have nothing there"):
        table.values("n", "label")


def test_rows_of_several_files_are_named_with_their_file() -> None:
    table = Table("2 files", {"a": ["", "x", ""]}, [2, 3, 2], files=["a.csv", "a.csv", "b.csv"])
    with pytest.raises(UserError, match=r"\(line 2 of a\.csv, line 2 of b\.csv\)"):
        table.column("a", "text")
