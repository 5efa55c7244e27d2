"""Encodings that a recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest

from structune.data.reading import read_table
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe

TEXT = "text,label\ncafé – “so”,1\n"


@pytest.mark.parametrize("encoding", ["windows-1252", "cp1252", "utf-8", "UTF-16", "utf-16-le", "mac-roman"])
def test_given(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes(TEXT.encode(encoding))
    assert read_table(tmp_path / "x.csv", "train", encoding=encoding).columns["text"] == ["café – “so”"]


def test_japanese_in_tabs(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes("text\tlabel\n面白い映画\t1\n".encode("shift_jis"))
    assert read_table(tmp_path / "x.tsv", "train", encoding="shift_jis").columns["text"] == ["面白い映画"]
    with pytest.raises(UserError, match=r"line 2: not UTF-8 .* Or set data\.encoding to what it is"):
        read_table(tmp_path / "x.tsv", "train")


def test_the_mark_of_another_encoding_is_no_guess(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(TEXT.encode("utf-8-sig"))
    with pytest.raises(
        UserError, match=r"data\.encoding is cp1252, but the file begins with the mark of UTF-8\. Remove"
    ):
        read_table(tmp_path / "x.csv", "train", encoding="windows-1252")
    assert list(read_table(tmp_path / "x.csv", "train", encoding="utf-8").columns) == ["text", "label"]


def test_bytes_that_the_encoding_has_not(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"text,label\na,1\n\x81,2\n")
    with pytest.raises(UserError, match=r"line 3: not cp1252 \(byte 0x81\)"):
        read_table(tmp_path / "x.csv", "train", encoding="windows-1252")


def test_utf8_read_as_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(TEXT.encode())
    with pytest.warns(UserWarning, match=r"data\.encoding is iso8859-1, but the file can be read as UTF-8"):
        read_table(tmp_path / "x.csv", "train", encoding="latin-1")


def test_a_recipe_knows_its_encodings() -> None:
    assert Recipe.parse({"data": {"train": "x.csv", "encoding": "windows-1252"}}).data.encoding == "windows-1252"
    for wrong in ("utf-9", "base64"):
        with pytest.raises(UserError, match=rf"data\.encoding = '{wrong}': no encoding of texts has such a name"):
            Recipe.parse({"data": {"train": "x.csv", "encoding": wrong}})
