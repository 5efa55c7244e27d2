"""JSON: an object a line, or an array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from structune.data.formats.kinds import by_pandas
from structune.data.table import Table
from structune.errors import UserError

_SPACE = re.compile(r"[ \t\r\n]*")


def read_json_lines(text: str, source: str) -> Table:
    """The table of JSON Lines.

    Raises:
        UserError: a line is no object, or has other keys than the first.
    """
    return _table(_lines(text.split("\n"), source), source, "line")


def json_line_pieces(lines: Iterable[str], source: str, rows: int) -> Iterator[Table]:
    """The rows of JSON Lines that come one after the other, at most so many at a time.

    Raises:
        UserError: a line is no object, or has other keys than the first.
    """
    found = _lines(lines, source)
    names: list[str] | None = None
    while piece := list(islice(found, rows)):
        names = names or list(piece[0][1])
        yield _table(iter(piece), source, "line", names)


def read_json_array(text: str, source: str) -> Table:
    """The table of a JSON array of objects; a row is told by the line on which its object begins.

    Raises:
        UserError: it is no JSON, or its entries are no objects, or have other keys than the first.
    """
    return _table(_entries(text, source), source, "object")


def is_array(text: str) -> bool:
    """Whether a text is an array of objects."""
    if not re.match(r"\s*\[\s*\{", text):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def refuse_other_objects(text: str, path: Path, name: PurePath, where: str) -> None:
    """Raises `UserError` for one object over many lines, and for JSON Lines under another ending.

    Args:
        text: what begins with `{`.
        path: the file.
        name: the name whose ending counts.
        where: how messages begin.
    """
    try:
        row = json.loads(text.lstrip().partition("\n")[0])
    except json.JSONDecodeError:
        row = None
    lines = name.suffix.lower() in LINES
    alone = len(text.strip().split("\n")) == 1
    packed = path.name[len(name.name) :] if path.name.startswith(name.name) else ""
    new = f"{name.name.partition('.')[0]}.jsonl{packed}"
    renamed = f"rename it to {new!r}"
    if isinstance(row, dict) and not (alone and (_is_numbered(row) or (_is_nested(row) and not lines))):
        if not lines:
            raise UserError(f"{where}: holds JSON Lines, one object a line; {renamed}")
        return
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return
    if isinstance(whole, dict):
        fix = f"make JSON Lines of it, {by_pandas(path, 'read_json')}"
        if alone and not _is_numbered(whole):
            fix = f"if that is one row, {renamed}; if it is a whole table, {fix}"
        raise UserError(f"{where}: holds one JSON object; {fix}")


LINES = (".jsonl", ".ndjson")
"""Endings of JSON Lines."""


def _is_nested(row: dict[str, Any]) -> bool:
    """Whether it may be a table in one object: a list or object for each column."""
    return bool(row) and all(isinstance(value, list | dict) for value in row.values())


def _is_numbered(row: dict[str, Any]) -> bool:
    """Whether it is a table in one object as pandas writes it: for each column an object with the numbers of rows."""
    return _is_nested(row) and all(
        isinstance(value, dict) and value and all(map(str.isdecimal, value)) for value in row.values()
    )


def _table(
    rows: Iterator[tuple[int, dict[str, Any]]], source: str, each: str, names: Sequence[str] | None = None
) -> Table:
    """The table of rows with these keys, or those of the first."""
    columns: dict[str, list[Any]] = {name: [] for name in names or []}
    lines: list[int] = []
    for line, row in rows:
        if not lines and names is None:
            columns = {name: [] for name in row}
        if row.keys() != columns.keys():
            raise UserError(
                f"{source}, line {line}: the keys {sorted(row)} differ from the first object's {sorted(columns)}. "
                f"Give every {each} the same keys."
            )
        lines.append(line)
        for name, value in row.items():
            columns[name].append(value)
    return Table(source, columns, lines)


def _lines(lines: Iterable[str], source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(lines, start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{source}, line {line}: not JSON ({error.msg}). Each line must be one whole object, "
                f'for example {{"text": "...", "label": "..."}}.'
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{source}, line {line}: not an object but {content[:40]!r}. Write one {{...}} a line.")
        yield line, row


def _entries(text: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of an array one by one, so that the line of each is known."""
    decoder = json.JSONDecoder()
    place = _past_space(text, text.index("[") + 1)
    counted = line = 0
    ended = text.startswith("]", place)
    if ended:
        raise UserError(f"{source}: an empty array, without a row")
    while not ended:
        line += text.count("\n", counted, place)
        counted = place
        try:
            row, after = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{source}, line {error.lineno}: not JSON ({error.msg}). It should be an array of objects, "
                f'for example [{{"text": "...", "label": "..."}}].'
            ) from None
        if not isinstance(row, dict):
            shown = text[place : min(after, place + 40)]
            raise UserError(f"{source}, line {line + 1}: not an object but {shown!r}. Write one {{...}} a row.")
        yield line + 1, row
        place = _past_space(text, after)
        ended = text.startswith("]", place)
        if not ended and not text.startswith(",", place):
            number = text.count("\n", 0, place) + 1
            raise UserError(f"{source}, line {number}: an array of objects needs a comma or ] here")
        place = _past_space(text, place + 1)
    if place < len(text):
        number = text.count("\n", 0, place) + 1
        raise UserError(f"{source}, line {number}: one array of objects, then {text[place : place + 20]!r}")


def _past_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    assert space is not None  # it may be empty
    return space.end()
