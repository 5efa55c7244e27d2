"""Files of the kinds that are not read, known by their first bytes, and how to make one that is."""

from __future__ import annotations

from pathlib import Path

from structune.data.formats.content import is_zip, without_packing
from structune.errors import UserError

_BY_PANDAS: list[tuple[bytes, str, str]] = [
    (b"\x89HDF\r\n", "an HDF5 file", "read_hdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "read_excel"),
    (b"\x80\x02", "a pickle", "read_pickle"),
    (b"\x80\x03", "a pickle", "read_pickle"),
    (b"\x80\x04", "a pickle", "read_pickle"),
    (b"\x80\x05", "a pickle", "read_pickle"),
]
"""First bytes, what they begin, and what in pandas reads it."""

_BY_HAND: list[tuple[bytes, str, str]] = [
    (b"7z\xbc\xaf", "a 7z archive", "unpack it, and name one file of it"),
    (b"Rar!", "a RAR archive", "unpack it, and name one file of it"),
    (b"SQLite format 3\0", "an SQLite database", "save the table as a CSV file"),
    (b"\x93NUMPY", "a NumPy array", "save texts and labels as a CSV file"),
    (b"%PDF", "a PDF", "save its table as a CSV file"),
    (b"{\\rtf", "an RTF document", "save its table as a CSV file"),
    (
        b"version https://git-lfs",
        "a pointer that Git LFS left in place of the file",
        "get the file with `git lfs pull`",
    ),
    (b"<!doctype", "a web page, not the file that it shows", "download the raw file"),
    (b"<html", "a web page, not the file that it shows", "download the raw file"),
    (b"<?xml", "an XML file", "save it as a CSV file"),
]
"""First bytes, in lower case where they are text, what they begin, and what to do."""


def refuse_other_kinds(raw: bytes, path: Path, where: str) -> None:
    """Raises `UserError` for the bytes of a file that is none of the kinds that are read."""
    if is_zip(raw):  # one that is unpacked already, or a workbook
        advice = by_pandas(path, "read_excel")
        raise UserError(f"{where}: this is an OpenDocument file; make a CSV file of it, {advice}")
    for start, what, reader in _BY_PANDAS:
        if raw.startswith(start):
            raise UserError(f"{where}: this is {what}; make a CSV file of it, {by_pandas(path, reader)}")
    beginning = raw[:64].lstrip().lower()
    for start, what, fix in _BY_HAND:
        if raw.startswith(start) or beginning.startswith(start):
            raise UserError(f"{where}: this is {what}; {fix}")
    if raw[257:262] == b"ustar":
        raise UserError(f"{where}: this is a tar archive; unpack it, and name one file of it")


def by_pandas(path: Path, reader: str) -> str:
    """A line that makes a CSV file of `path`, or JSON Lines where texts are read from JSON."""
    lines = reader == "read_json"
    plain = Path(without_packing(path))
    target = str(plain.with_suffix(".jsonl" if lines else ".csv"))
    if target == str(path):  # the file under a wrong name is not to be written over
        target = str(path.with_name(f"{path.stem}-new{path.suffix}"))
    writer = f"to_json({target!r}, orient='records', lines=True)" if lines else f"to_csv({target!r}, index=False)"
    return f"with pandas: pandas.{reader}({str(path)!r}).{writer}"
