"""A table of text read from a CSV, TSV or JSON Lines file, with every mistake told by file, line and fix."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from structune.finetune.errors import UserError
from structune.finetune.section import closest

__all__ = ["Table", "read_table"]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SPOKEN = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}


@dataclass(frozen=True)
class Table:
    """Columns of equal length. ``source`` and ``lines`` (where each row starts, from 1) are for error messages."""

    source: str
    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str, field: str) -> list[str]:
        """The column a recipe's ``data.<field>`` names.

        Raises:
            UserError: no such column, or an empty entry in it.
        """
        if name not in self.columns:
            listed = ", ".join(repr(column) for column in self.columns)
            raise UserError(
                f"data.{field} = {name!r}: {self.source} has no such column{closest(name, list(self.columns))}; "
                f"it has {listed}. Set data.{field} to one of them."
            )
        values = self.columns[name]
        empty = [self.lines[row] for row, value in enumerate(values) if not value.strip()]
        if empty:
            shown = ", ".join(str(line) for line in empty[:5]) + (", ..." if len(empty) > 5 else "")
            raise UserError(
                f"data.{field} = {name!r}: {len(empty)} of {len(values)} rows of {self.source} have nothing there "
                f"(line {shown}). Fill them in or delete the rows."
            )
        return values


def read_table(path: str | Path, field: str, separator: str | None = None) -> Table:
    """Read a UTF-8 file by its ending: ``.csv``, ``.tsv`` (no quoting) or ``.jsonl``, ``.ndjson`` (one object a line).

    Args:
        path: the file.
        field: the recipe's field that names it, for messages.
        separator: between fields; by default a comma for ``.csv`` and a tab for ``.tsv``.

    Raises:
        UserError: the file is missing, empty, not UTF-8, of another kind, ragged or wrongly separated, or names a
            column twice.
    """
    path = Path(path)
    text = _text(path, field)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _from_json_lines(text, str(path))
    if suffix in _SEPARATORS or separator is not None:
        return _from_separated(text, str(path), separator or _SEPARATORS[suffix])
    raise UserError(
        f"data.{field} = {str(path)!r}: cannot tell the kind of file from its ending {suffix!r}; known: .csv, .tsv, "
        f".jsonl (one JSON object a line). Rename it, or give data.separator."
    )


def _text(path: Path, field: str) -> str:
    if path.is_dir():
        raise UserError(f"data.{field} = {str(path)!r}: that is a folder; name one file in it")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        near = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(
            f"data.{field} = {str(path)!r}: no such file{closest(path.name, near)}; "
            f"paths are taken from the current folder, {Path.cwd()}"
        ) from None
    except OSError as error:
        raise UserError(f"data.{field} = {str(path)!r}: cannot be read ({error.strerror})") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"data.{field} = {str(path)!r}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save it as UTF-8: "
            f"'CSV UTF-8' in a spreadsheet, or `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None
    if "\0" in text:
        raise UserError(f"data.{field} = {str(path)!r}: holds zero bytes, so it is no text in UTF-8. Save it as UTF-8.")
    if not text.strip():
        raise UserError(f"data.{field} = {str(path)!r}: the file is empty")
    return text


def _from_separated(text: str, source: str, separator: str) -> Table:
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
    rows = _numbered(reader, source)
    _, header = next(rows)
    header = [name.strip() for name in header]
    _check_header(header, source, separator)
    columns: dict[str, list[str]] = {name: [] for name in header}
    lines: list[int] = []
    for line, row in rows:
        if len(row) != len(header):
            hint = (
                "Fields of a tab-separated file cannot hold tabs or line breaks."
                if quoting == csv.QUOTE_NONE
                else f'A text that holds {_spoken(separator)} or a line break must be in "double quotes".'
            )
            raise UserError(f"{source}, line {line}: {len(row)} fields where the header has {len(header)}. {hint}")
        lines.append(line)
        for name, value in zip(header, row, strict=True):
            columns[name].append(value)
    if not lines:
        raise UserError(f"{source}: a header and no rows")
    return Table(source, columns, lines)


def _numbered(reader: Iterator[list[str]], source: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line it starts on."""
    line_num = 0
    while True:
        start = line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{source}, row starting on line {start}: {error}. "
                f"Look for a double quote that is not closed or not doubled."
            ) from None
        line_num = reader.line_num  # type: ignore[attr-defined]
        if row:
            yield start, row


def _check_header(header: list[str], source: str, separator: str) -> None:
    others = [other for other in _SPOKEN if other != separator and other in header[0]]
    if len(header) == 1 and others:
        raise UserError(
            f"{source}: one column, {header[0]!r}, when split at {_spoken(separator)}; it looks separated by "
            f"{_spoken(others[0])}. Set data.separator to {others[0]!r}."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{source}: the header names {', '.join(map(repr, twice))} more than once. Rename one of them.")


def _spoken(separator: str) -> str:
    return _SPOKEN.get(separator, repr(separator))


def _from_json_lines(text: str, source: str) -> Table:
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        row = _json_object(content, source, line)
        if not lines:
            columns = {name: [] for name in row}
        if row.keys() != columns.keys():
            raise UserError(
                f"{source}, line {line}: the keys {sorted(row)} differ from the first object's {sorted(columns)}. "
                f"Give every line the same keys."
            )
        lines.append(line)
        for name, value in row.items():
            columns[name].append("" if value is None else value if isinstance(value, str) else json.dumps(value))
    return Table(source, columns, lines)


def _json_object(content: str, source: str, line: int) -> dict[str, object]:
    try:
        row = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{source}, line {line}: not JSON ({error.msg}). Each line must be one whole object, "
            f'for example {{"text": "...", "label": "..."}}.'
        ) from None
    if not isinstance(row, dict):
        raise UserError(f"{source}, line {line}: not an object but {content[:40]!r}. Write one {{...}} a line.")
    return row
