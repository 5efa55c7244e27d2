"""Rows some at a time, in bounded memory: of a file, or of what is written to standard input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import IO

from structune.data.section import DataSection
from structune.data.sources import load_file
from structune.data.table import Table
from structune.errors import UserError

ENDINGS = (
    ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".xlsx", ".xlsm",
)  # fmt: skip
"""Of files that hold rows, before an ending of what they are packed with."""

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_FIELD = "rows"


def is_data_file(given: str, section: DataSection) -> bool:
    """Whether a name is that of a file of rows, by its ending; it need not be there."""
    path = Path(given)
    if path.suffix.lower() in _PACKED:
        path = path.with_suffix("")
    return path.suffix.lower() in ENDINGS or (section.separator is not None and os.path.isfile(given))


def file_pieces(path: str, section: DataSection, rows: int) -> Iterator[Table]:
    """The rows of a file, at most so many at a time.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        table = load_file(path, section, _FIELD)
    except UserError as error:
        raise UserError(str(error).replace(f"data.{_FIELD} = ", "")) from None
    yield from cut(table, rows)


def cut(table: Table, rows: int) -> Iterator[Table]:
    """The table in pieces of at most so many rows."""
    for start in range(0, len(table), rows):
        some = slice(start, start + rows)
        columns = {name: cells[some] for name, cells in table.columns.items()}
        files = None if table.files is None else table.files[some]
        yield replace(table, columns=columns, lines=table.lines[some], files=files)


def line_pieces(
    stream: IO[bytes], source: str, rows: int, table_of: Callable[[Sequence[str]], Table]
) -> Iterator[Table]:
    """The rows of a stream of lines, at most so many at a time: objects of JSON where the first line is one.

    Args:
        stream: lines in UTF-8.
        source: its name, for messages.
        rows: how many at a time.
        table_of: the table that other lines stand for.

    Raises:
        UserError: nothing comes, a line is not UTF-8 or empty, or an object has other keys than the first.
    """
    lines: Iterator[tuple[int, str]] = _numbered(stream, source)
    first = next(lines, None)
    if first is None:
        raise UserError(f"{source}: nothing came; give a line for each example, or JSON Lines")
    keys = _object(first[1])
    lines = chain([first], lines)
    while piece := list(islice(lines, rows)):
        numbers = [number for number, _ in piece]
        if keys is None:
            table = table_of([line for _, line in piece])
            # A line that stands for a folder is several rows, whose places are in it.
            yield replace(table, source=source, lines=numbers, unit="line") if len(table) == len(piece) else table
        else:
            objects = [_with_keys(keys, number, line, source) for number, line in piece]
            yield Table(source, {key: [each[key] for each in objects] for key in keys}, numbers)


def _numbered(stream: IO[bytes], source: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; empty ones at the end are none."""
    empty: int | None = None
    for number, raw in enumerate(stream, start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{source}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x})") from None
        if not line.strip():
            empty = empty or number
            continue
        if empty is not None:
            raise UserError(f"{source}, line {empty}: nothing there; leave empty lines out")
        yield number, line


def _with_keys(keys: Mapping[str, object], number: int, line: str, source: str) -> dict[str, object]:
    found = _object(line)
    if found is None:
        raise UserError(
            f"{source}, line {number}: not an object of JSON, as the first line is, but {line[:40]!r}. Write one "
            f"{{...}} a line."
        )
    if found.keys() != keys.keys():
        raise UserError(
            f"{source}, line {number}: the keys {sorted(found)} differ from the first object's {sorted(keys)}. "
            f"Give every line the same keys."
        )
    return found


def _object(line: str) -> dict[str, object] | None:
    try:
        found = json.loads(line) if line.lstrip().startswith("{") else None
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
