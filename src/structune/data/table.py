"""A table read from a CSV, TSV or JSON Lines file, with every mistake told by file, line and fix."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from structune.data.cells import as_text, is_binary, is_empty
from structune.data.file_text import by_pandas, read_text
from structune.data.header import first_row_named
from structune.data.quotes import enclose_fields, enclose_rows
from structune.doubt import say
from structune.errors import UserError
from structune.section import closest

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SEPARATOR_LINE = re.compile(r"(sep=[^\r\n])\r?\n", re.IGNORECASE)
_SEPARATOR_NAMES = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}


@dataclass(frozen=True)
class Table:
    """Columns of equal length, whose cells are of the types that their source has: texts, numbers, lists, bytes, ….

    Attributes:
        source: where they are from, for messages.
        columns: a list of cells for each name.
        lines: where each row is, from 1: the line on which it starts.
        headed: whether the names are those in the first line of a file.
        unit: what `lines` counts.
        files: the file of each row, where there are several.
    """

    source: str
    columns: dict[str, list[Any]]
    lines: list[int]
    headed: bool = False
    unit: str = "line"
    files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: str) -> bool:
        """Whether `values` finds cells of this name."""
        return self._find(name) is not None

    def column(self, name: str, field: str) -> list[str]:
        """The column a recipe's `data.<field>` names, as texts: what is none as JSON writes it.

        Raises:
            UserError: no such column, or an empty entry in it, or one that is no text: bytes.
        """
        values = self.values(name, field)
        if binary := [row for row, value in enumerate(values) if is_binary(value)]:
            raise UserError(
                f"data.{field} = {name!r}: {len(binary)} of {len(values)} rows of {self.source} hold bytes there, such "
                f"as those of an image, and no text ({self.places(binary)}). Set data.{field} to another column."
            )
        return [as_text(value) for value in values]

    def values(self, name: str, field: str, allow_empty: bool = False) -> list[Any]:
        """The column a recipe's `data.<field>` names, its cells as they are.

        `label.name` is the entry `name` of what the cells of `label` hold, unless there is a column of that name.

        Raises:
            UserError: no such column, or (unless `allow_empty`) an empty entry in it.
        """
        found = self._find(name)
        if found is None:
            raise UserError(self._missing(name, field))
        empty = [] if allow_empty else [row for row, value in enumerate(found) if is_empty(value)]
        if empty:
            raise UserError(
                f"data.{field} = {name!r}: {len(empty)} of {len(found)} rows of {self.source} have nothing there "
                f"({self.places(empty)}). Fill them in or delete the rows."
            )
        return found

    def places(self, rows: Sequence[int]) -> str:
        """Where the first of these rows are, for messages: `line 3, 7, ...`, `line 3 of a.csv, line 1 of b.csv`."""
        more = ", ..." if len(rows) > _PLACES else ""
        if self.files is None:
            return f"{self.unit} {', '.join(str(self.lines[row]) for row in rows[:_PLACES])}{more}"
        return ", ".join(f"{self.unit} {self.lines[row]} of {self.files[row]}" for row in rows[:_PLACES]) + more

    def _find(self, name: str) -> list[Any] | None:
        if name in self.columns:
            return self.columns[name]
        alike = [column for column in self.columns if column.strip() == name.strip()]
        if len(alike) == 1:
            return self.columns[alike[0]]
        outer, *keys = name.split(".")
        cells = self.columns.get(outer)
        if cells is None or not keys:
            return None
        for key in keys:
            if not any(isinstance(cell, dict) and key in cell for cell in cells):
                return None
            cells = [cell.get(key) if isinstance(cell, dict) else None for cell in cells]
        return cells

    def _missing(self, name: str, field: str) -> str:
        names = list(self.columns)
        advice = first_row_named(names, list(self.columns.values())) if self.headed else ""
        outer = name.partition(".")[0]
        inside = [
            f"{column}.{key}"
            for column, cells in self.columns.items()
            for key in dict.fromkeys(key for cell in cells[:_LOOKED_INTO] if isinstance(cell, dict) for key in cell)
        ]
        known = [*(entry for entry in inside if entry.partition(".")[0] == outer), *names] if outer in names else names
        listed = ", ".join(map(repr, known))
        return (
            f"data.{field} = {name!r}: {self.source} has no such column{closest(name, [*names, *inside])}; "
            f"it has {listed}. {advice}{'; else set' if advice else 'Set'} data.{field} to one of them."
        )


_PLACES = 5  # that a message names
_LOOKED_INTO = 100  # cells, for the names of what they hold


def read_table(
    path: str | Path, field: str, separator: str | None = None, columns: Sequence[str] | None = None
) -> Table:
    """Read a text file by its ending: `.csv`, `.tsv` or `.jsonl`, `.ndjson` (one object a line).

    Args:
        path: the file; compressed with gzip, it ends with `.gz` too.
        field: the recipe's field that names it, for messages.
        separator: between fields; by default a comma for `.csv` and a tab for `.tsv`.
        columns: the columns' names, for a file without a header.

    Raises:
        UserError: the file is missing, empty, of another kind or encoding, ragged or wrongly separated, or names a
            column twice.
    """
    path = Path(path)
    text = read_text(path, field)
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = plain.suffix.lower()
    where = f"data.{field} = {str(path)!r}"
    if hint := _SEPARATOR_LINE.match(text):  # of Excel; an empty line in its place keeps the numbers of lines
        text, separator = text[hint.end(1) :], separator or hint[1][-1]
    if text.lstrip()[:1] in "[{":
        _refuse_other_json(text, path, suffix in (".jsonl", ".ndjson"), where)
    if suffix in (".jsonl", ".ndjson"):
        if columns is not None:
            raise UserError(f"{where}: data.columns is for files without a header; JSON Lines have keys. Remove it.")
        return _from_json_lines(text, str(path))
    if suffix in _SEPARATORS or separator is not None:
        return _from_separated(text, str(path), separator or _SEPARATORS[suffix], columns)
    if found := _separator(text):
        raise UserError(
            f"{where}: cannot tell the kind of file from its ending {suffix!r}; it looks separated by "
            f"{_separator_name(found)}. Set data.separator to {found!r}."
        )
    raise UserError(
        f"{where}: cannot tell the kind of file from its ending {suffix!r}; known: .csv, .tsv, .jsonl (one JSON object "
        f"a line). Rename it, or give data.separator."
    )


def _refuse_other_json(text: str, path: Path, lines: bool, where: str) -> None:
    """Raises `UserError` for an array, one object over many lines, and JSON Lines under another ending."""
    try:
        row = json.loads(text.lstrip().partition("\n")[0])
    except json.JSONDecodeError:
        row = None
    if isinstance(row, dict) and not (len(text.strip().split("\n")) == 1 and _is_nested(row)):
        if not lines:
            name = f"{path.name.partition('.')[0]}.jsonl{'.gz' if path.suffix.lower() == '.gz' else ''}"
            raise UserError(f"{where}: holds JSON Lines, one object a line; rename it to {name!r}")
        return
    if row is not None and not isinstance(row, dict) and not _holds_objects(row):
        return  # a line such as [1, 2]
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return
    if isinstance(whole, dict) or _holds_objects(whole):
        what = "one JSON object" if isinstance(whole, dict) else "a JSON array"
        raise UserError(f"{where}: holds {what}; make JSON Lines of it, {by_pandas(path, 'read_json')}")


def _is_nested(row: dict[str, object]) -> bool:
    """Whether it is a table in one object: a list or object for each column."""
    return bool(row) and all(isinstance(value, list | dict) for value in row.values())


def _holds_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _from_separated(text: str, source: str, separator: str, names: Sequence[str] | None = None) -> Table:
    enclosed = separator != "\t" or enclose_fields(text, separator)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if enclosed else csv.QUOTE_NONE
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    with _fields_of_any_length(text):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
        rows = _numbered(reader, source)
        if names is None:
            _, header = next(rows)
            header = [name.strip() for name in header]
            _check_header(header, rows, source, separator)
        else:
            header = list(names)
        columns = {name: [] for name in header}
        for line, row in rows:
            if not lines and names is not None:
                _check_names(names, row, source, separator)
            if len(row) != len(header):
                raise UserError(f"{source}, line {line}: {_ragged(row, header, text, separator, enclosed)}")
            lines.append(line)
            for name, value in zip(header, row, strict=True):
                columns[name].append(value)
    if not lines:
        raise UserError(f"{source}: a header and no rows. {first_row_named(list(columns))}".strip())
    if kept := sum(value.startswith(' "') and value.endswith('"') for values in columns.values() for value in values):
        say([f"{source}: {kept} fields keep their double quotes, which have a space before them: remove the spaces"])
    if enclosed and (doubtful := enclose_rows(columns, lines, separator)):
        say(
            [
                f"{source}: {len(doubtful)} texts hold line breaks and what looks like whole rows (the first from line "
                f"{doubtful[0]}): is a double quote there not closed, or not doubled?"
            ]
        )
    return Table(source, columns, lines, headed=names is None)


@contextmanager
def _fields_of_any_length(text: str) -> Iterator[None]:
    before = csv.field_size_limit(max(len(text), 131072))
    try:
        yield
    finally:
        csv.field_size_limit(before)


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
            hints = {
                "unexpected end": "Look for a double quote that is not closed.",
                "expected after": "Look for a double quote that is not closed, or one inside a text that is not "
                "doubled.",
            }
            hint = next((hint for part, hint in hints.items() if part in str(error)), "")
            raise UserError(f"{source}, row starting on line {start}: {error}. {hint}".rstrip()) from None
        line_num = reader.line_num  # type: ignore[attr-defined]
        if row:
            yield start, row


def _check_header(header: list[str], rows: Iterator[tuple[int, list[str]]], source: str, separator: str) -> None:
    _check_separator(header, source, separator)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        some = [row for _, row in islice(rows, 100) if len(row) == len(header)]
        advice = first_row_named(header, list(zip(*some, strict=True))) or "Rename one of them."
        raise UserError(f"{source}: the header names {', '.join(map(repr, twice))} more than once. {advice}")


def _check_separator(row: Sequence[str], source: str, separator: str) -> None:
    others = [other for other in _SEPARATOR_NAMES if other != separator and other in row[0]]
    if len(row) == 1 and others:
        raise UserError(
            f"{source}: one column, {row[0][:60]!r}, when split at {_separator_name(separator)}; it looks separated by "
            f"{_separator_name(others[0])}. Set data.separator to {others[0]!r}."
        )


def _check_names(names: Sequence[str], first: Sequence[str], source: str, separator: str) -> None:
    """Raises `UserError` unless `names` are those of the columns of a file without a header."""
    _check_separator(first, source, separator)
    if [name.strip().lower() for name in first] == [name.strip().lower() for name in names]:
        raise UserError(f"{source}: its first line is a header already; remove data.columns")
    if len(first) != len(names):
        raise UserError(
            f"data.columns = {list(names)!r}: {len(names)} names, but the first line of {source} has {len(first)} "
            f"fields ({', '.join(repr(value[:30]) for value in first[:6])}). Name every column."
        )


def _ragged(row: Sequence[str], header: Sequence[str], text: str, separator: str, enclosed: bool) -> str:
    problem = f"{len(row)} fields where the header has {len(header)}."
    if (other := _separator(text)) and other != separator:
        return f"{problem} The file looks separated by {_separator_name(other)}: set data.separator to {other!r}."
    if any(value.startswith(' "') for value in row):
        return f"{problem} Remove the space between the separator and the double quote."
    if not enclosed:
        return f"{problem} A text that holds a tab or a line break must be in quotes, as pandas writes it."
    return f'{problem} A text that holds {_separator_name(separator)} or a line break must be in "double quotes".'


def _separator(text: str) -> str | None:
    """What separates the fields of the first lines, all into the same number of them; None if that is not clear."""
    begin = "".join(text.splitlines(keepends=True)[:20])
    widths = {}
    for separator in _SEPARATOR_NAMES:
        rows = [row for row in csv.reader(io.StringIO(begin, newline=""), delimiter=separator) if row]
        widths[separator] = {len(row) for row in rows}
    found = [separator for separator, seen in widths.items() if len(seen) == 1 and max(seen) > 1]
    return found[0] if len(found) == 1 else None


def _separator_name(separator: str) -> str:
    return _SEPARATOR_NAMES.get(separator, repr(separator))


def _from_json_lines(text: str, source: str) -> Table:
    columns: dict[str, list[Any]] = {}
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
            columns[name].append(value)
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
