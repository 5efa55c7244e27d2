"""A table from a file or a folder of any kind that is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from structune.data.formats.arrow import arrow_kind, read_arrow
from structune.data.formats.content import read_content
from structune.data.formats.kinds import refuse_other_kinds
from structune.data.formats.objects import (
    LINES,
    is_array,
    read_json_array,
    read_json_lines,
    refuse_other_objects,
)
from structune.data.formats.separated import guessed_separator, read_separated, separator_name
from structune.data.formats.text import decode
from structune.data.formats.text_folder import is_text_folder, read_text_folder
from structune.data.formats.workbook import is_workbook, read_workbook
from structune.data.table import Table
from structune.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Endings of texts whose fields are separated, and by what."""

_SEPARATOR_LINE = re.compile(r"(sep=[^\r\n])\r?\n", re.IGNORECASE)


def read_table(
    path: str | Path,
    field: str,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Read a file, or a folder of text files with a subfolder for each class.

    Parquet, Arrow, Feather, Excel and compressed files are known by their first bytes, arrays of JSON by theirs; other
    texts by their ending: `.csv`, `.tsv`, `.jsonl` and `.ndjson` (one object a line). What is said of one kind of file
    means nothing to the others, but for `columns`.

    Args:
        path: the file or folder.
        field: the recipe's field that names it, for messages.
        separator: between fields; by default a comma for `.csv` and a tab for `.tsv`.
        columns: the columns' names, for a file without a header.
        encoding: of a text file that neither is in UTF-8 nor begins with the mark of its encoding.
        sheet: of a workbook with several.

    Raises:
        UserError: the file is missing, empty, of another kind or encoding, ragged or wrongly separated, or names a
            column twice.
    """
    path = Path(path)
    where = f"data.{field} = {str(path)!r}"
    if _is_folder(path):
        if not is_text_folder(path):
            raise UserError(f"{where}: {_folder(path)}")
        _refuse_columns(columns, where, "a folder of text files has text and label")
        return read_text_folder(path, where, encoding)
    content = read_content(path, where)
    if kind := arrow_kind(content.raw):
        _refuse_columns(columns, where, f"{kind} has names")
        return read_arrow(content.raw, str(path))
    if is_workbook(content.raw):
        return read_workbook(content.raw, str(path), sheet, columns)
    refuse_other_kinds(content.raw, path, where)
    text = decode(content.raw, where, encoding)
    suffix = content.name.suffix.lower()
    if hint := _SEPARATOR_LINE.match(text):  # of Excel; an empty line in its place keeps the numbers of lines
        text, separator = text[hint.end(1) :], separator or hint[1][-1]
    if (suffix == ".json" and text.lstrip().startswith("[")) or is_array(text):
        _refuse_columns(columns, where, "JSON has keys")
        return read_json_array(text, str(path))
    if text.lstrip().startswith("{"):
        refuse_other_objects(text, path, content.name, where)
    if suffix in LINES:
        _refuse_columns(columns, where, "JSON Lines have keys")
        return read_json_lines(text, str(path))
    if suffix in SEPARATORS or separator is not None:
        return read_separated(text, str(path), separator or SEPARATORS[suffix], columns)
    if found := guessed_separator(text):
        raise UserError(
            f"{where}: cannot tell the kind of file from its ending {suffix!r}; it looks separated by "
            f"{separator_name(found)}. Set data.separator to {found!r}."
        )
    raise UserError(
        f"{where}: cannot tell the kind of file from its ending {suffix!r}; known: .csv, .tsv, .jsonl (one JSON object "
        f"a line), .json (an array of objects), .parquet, .arrow, .feather, .xlsx. Rename it, or give data.separator."
    )


def _refuse_columns(columns: Sequence[str] | None, where: str, names: str) -> None:
    if columns is not None:
        raise UserError(f"{where}: data.columns is for files without a header; {names}. Remove it.")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that nothing can have
        return False


def _folder(path: Path) -> str:
    files = sorted(file.name for file in path.iterdir() if file.is_file())[:5]
    inside = f" (it has {', '.join(map(repr, files))})" if files else ""
    return f"that is a folder; name one file in it{inside}, or a folder with a subfolder of text files for each class"
