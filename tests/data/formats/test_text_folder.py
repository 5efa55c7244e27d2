"""Folders of text files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from structune.data.reading import read_table
from structune.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"pos/2.txt": "good\n\nfilm", "pos/in/1.txt": "fine", "neg/1.txt": "weak"}.items():
        file = tmp_path / "films" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "films" / "neg" / ".hidden").write_bytes(b"\0")
    return tmp_path / "films"


def test_a_row_for_each_file(folder: Path) -> None:
    (folder / "neg" / "2.txt.gz").write_bytes(gzip.compress("café".encode("latin-1")))
    table = read_table(folder, "train", encoding="latin-1")
    assert table.columns == {"text": ["weak", "café", "good\n\nfilm", "fine"], "label": ["neg", "neg", "pos", "pos"]}


def test_an_empty_file_is_told_by_its_name(folder: Path) -> None:
    (folder / "neg" / "1.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"1 of 3 rows of .*films have nothing there \(neg/1\.txt\)"):
        read_table(folder, "train").column("text", "text")


def test_what_is_not_read_is_told(folder: Path) -> None:
    (folder / "README.md").write_text("about")
    with pytest.warns(UserWarning, match=r"1 files beside the subfolders are not read \(the first: 'README\.md'\)"):
        read_table(folder, "train")
    (folder / "pos" / "x.png").write_bytes(b"\x89PNG")
    with (
        pytest.warns(UserWarning, match="README"),
        pytest.raises(UserError, match=r"'pos/x\.png' is no text file .* Take it out"),
    ):
        read_table(folder, "train")


def test_an_empty_subfolder_is_told(folder: Path) -> None:
    (folder / "other").mkdir()
    with pytest.raises(UserError, match="the subfolder 'other' is empty"):
        read_table(folder, "train")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="that is a folder; name one file in it, or a folder with a subfolder of text"):
        read_table(tmp_path, "train")
