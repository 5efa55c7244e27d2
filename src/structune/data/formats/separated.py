"""CSV, TSV and other texts whose fields are separated."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Literal, NamedTuple

from structune.data.header import first_row_named
from structune.data.quotes import enclose_fields, enclose_rows
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError

_SEPARATOR_NAMES = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}


def read_separated(text: str, source: str, separator: str, names: Sequence[str] | None = None) -> Table:
    """The table of a text whose fields are separated; `names` are the columns', for a text without a header.

    Raises:
        UserError: it is ragged, wrongly separated or quoted, without rows, or names a column twice.
    """
    with _fields_up_to(len(text)):
        found = _opened(io.StringIO(text, newline=""), text, source, separator, names)
        table = _table(list(found.rows), found.header, source, headed=names is None)
    if not len(table):
        raise UserError(f"{source}: a header and no rows. {first_row_named(list(table.columns))}".strip())
    cells = (value for values in table.columns.values() for value in values)
    if kept := sum(value.startswith(' "') and value.endswith('"') for value in cells):
        say([f"{source}: {kept} fields keep their double quotes, which have a space before them: remove the spaces"])
    if found.enclosed and (doubtful := enclose_rows(table.columns, table.lines, separator)):
        say(
            [
                f"{source}: {len(doubtful)} texts hold line breaks and what looks like whole rows (the first from line "
                f"{doubtful[0]}): is a double quote there not closed, or not doubled?"
            ]
        )
    return table


def separated_pieces(
    file: IO[str], sample: str, source: str, separator: str, names: Sequence[str] | None, rows: int
) -> Iterator[Table]:
    """The rows of an open text, at most so many at a time, as `read_separated` reads them.

    Args:
        file: the text, opened with its line ends as they are.
        sample: its beginning, by which it is told whether quotes enclose fields.
        source: its name, for messages.
        separator: between fields.
        names: the columns', for a text without a header.
        rows: how many at a time.

    Raises:
        UserError: it is ragged, wrongly separated or quoted, without rows, or names a column twice.
    """
    with _fields_up_to(_LONGEST):
        found = _opened(file, sample, source, separator, names)
        piece = list(islice(found.rows, rows))
    if not piece:
        raise UserError(f"{source}: a header and no rows")
    while piece:
        yield _table(piece, found.header, source, headed=names is None)
        with _fields_up_to(_LONGEST):
            piece = list(islice(found.rows, rows))


class _Opened(NamedTuple):
    """A text whose header is read: its names, its rows with the line of each, and whether quotes enclose fields."""

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    enclosed: bool


_LONGEST = 2**26  # characters of a field, where rows come in pieces: beyond, a quote was not closed


def _opened(file: IO[str], sample: str, source: str, separator: str, names: Sequence[str] | None) -> _Opened:
    enclosed = separator != "\t" or enclose_fields(sample, separator)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if enclosed else csv.QUOTE_NONE
    reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
    rows = _numbered(reader, source)
    if names is None:
        _, header = next(rows)
        header = [name.strip() for name in header]
        _check_header(header, rows, source, separator)
    else:
        header = list(names)

    def checked() -> Iterator[tuple[int, list[str]]]:
        for number, (line, row) in enumerate(rows):
            if number == 0 and names is not None:
                _check_names(names, row, source, separator)
            if len(row) != len(header):
                raise UserError(f"{source}, line {line}: {_ragged(row, header, sample, separator, enclosed)}")
            yield line, row

    return _Opened(header, checked(), enclosed)


def _table(rows: Sequence[tuple[int, list[str]]], header: Sequence[str], source: str, headed: bool) -> Table:
    columns: dict[str, list[str]] = {name: [] for name in header}
    for _, row in rows:
        for name, value in zip(header, row, strict=True):
            columns[name].append(value)
    return Table(source, columns, [line for line, _ in rows], headed=headed)


@contextmanager
def _fields_up_to(length: int) -> Iterator[None]:
    before = csv.field_size_limit(max(length, 131072))
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
            f"{source}: one column, {row[0][:60]!r}, when split at {separator_name(separator)}; it looks separated by "
            f"{separator_name(others[0])}. Set data.separator to {others[0]!r}."
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
    if (other := guessed_separator(text)) and other != separator:
        return f"{problem} The file looks separated by {separator_name(other)}: set data.separator to {other!r}."
    if any(value.startswith(' "') for value in row):
        return f"{problem} Remove the space between the separator and the double quote."
    if not enclosed:
        return f"{problem} A text that holds a tab or a line break must be in quotes, as pandas writes it."
    return f'{problem} A text that holds {separator_name(separator)} or a line break must be in "double quotes".'


def guessed_separator(text: str) -> str | None:
    """What separates the fields of the first lines, all into the same number of them; None if that is not clear."""
    begin = "".join(text.splitlines(keepends=True)[:20])
    widths = {}
    for separator in _SEPARATOR_NAMES:
        rows = [row for row in csv.reader(io.StringIO(begin, newline=""), delimiter=separator) if row]
        widths[separator] = {len(row) for row in rows}
    found = [separator for separator, seen in widths.items() if len(seen) == 1 and max(seen) > 1]
    return found[0] if len(found) == 1 else None


def separator_name(separator: str) -> str:
    """The separator as people call it."""
    return _SEPARATOR_NAMES.get(separator, repr(separator))
