"""Rows some at a time, in bounded memory: of a file, or of what is written to standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import IO

from structune.data.formats.arrow import arrow_pieces
from structune.data.formats.content import open_unpacked, without_packing
from structune.data.formats.objects import LINES, json_line_pieces
from structune.data.formats.separated import separated_pieces
from structune.data.formats.text import marked_encoding
from structune.data.reading import SEPARATORS
from structune.data.section import DataSection
from structune.data.sources import load_file
from structune.data.table import Table
from structune.errors import UserError

ENDINGS = (*SEPARATORS, *LINES, ".json", ".parquet", ".arrow", ".feather", ".xlsx", ".xlsm")
"""Of files that hold rows, before an ending of what they are packed with."""

_LARGE = 2**25
"""Bytes of a file beyond which it is read in pieces, where its kind allows that; packed, an eighth."""

_SAMPLE = 2**20  # characters by which it is told whether quotes enclose fields
_FIELD = "rows"


def is_data_file(given: str, section: DataSection) -> bool:
    """Whether a name is that of a file of rows, by its ending; it need not be there."""
    ending = without_packing(Path(given)).suffix.lower()
    return ending in ENDINGS or (section.separator is not None and os.path.isfile(given))


def file_pieces(path: str, section: DataSection, rows: int) -> Iterator[Table]:
    """The rows of a file, at most so many at a time.

    Large files with fields between separators, JSON Lines and Parquet are read in pieces, packed with gzip, bzip2 or xz
    too. Whatever is small, and other kinds, is read whole: in small files more is looked at.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        pieces = _in_pieces(Path(path), section, rows) if os.path.isfile(path) and _is_large(Path(path)) else None
        yield from cut(load_file(path, section, _FIELD), rows) if pieces is None else pieces
    except UserError as error:
        raise UserError(str(error).replace(f"data.{_FIELD} = ", "")) from None


def _is_large(path: Path) -> bool:
    return path.stat().st_size * (1 if without_packing(path) == path else 8) > _LARGE


def _in_pieces(path: Path, section: DataSection, rows: int) -> Iterator[Table] | None:
    """None where the file is of a kind that is read whole."""
    ending = without_packing(path).suffix.lower()
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return arrow_pieces(path, str(path), rows)
    if ending not in LINES and ending not in SEPARATORS and section.separator is None:
        return None
    return _text_in_pieces(path, section, rows, section.separator or SEPARATORS.get(ending))


def _text_in_pieces(path: Path, section: DataSection, rows: int, separator: str | None) -> Iterator[Table]:
    """JSON Lines where nothing separates fields."""
    try:
        with open_unpacked(path) as raw:
            begin = raw.read(_SAMPLE)
            raw.seek(0)
            encoding = marked_encoding(begin) or section.encoding or "utf-8"
            sample = codecs.getincrementaldecoder(encoding)().decode(begin)
            text = io.TextIOWrapper(raw, encoding, newline="")
            if separator is None:
                yield from json_line_pieces(text, str(path), rows)
            else:
                yield from separated_pieces(text, sample, str(path), separator, section.columns, rows)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{str(path)!r}: not {error.encoding} everywhere ({error.reason}); save it as UTF-8, or set data.encoding "
            f"to what it is"
        ) from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{str(path)!r}: cannot be read to its end ({error}); get it anew") from None


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
    numbered = enumerate(_decoded(stream, source), start=1)
    first = next(((number, line) for number, line in numbered if line.strip()), None)
    if first is None:
        raise UserError(f"{source}: nothing came; give a line for each example, or JSON Lines")
    if _is_object(first[1]):
        before = [""] * (first[0] - 1)  # the numbers of lines stay right
        yield from json_line_pieces(chain(before, [first[1]], (line for _, line in numbered)), source, rows)
        return
    lines = _filled(chain([(n, "") for n in range(1, first[0])], [first], numbered), source)
    while piece := list(islice(lines, rows)):
        table = table_of([line for _, line in piece])
        # A line that stands for a folder is several rows, whose places are in it.
        same = len(table) == len(piece)
        yield replace(table, source=source, lines=[number for number, _ in piece], unit="line") if same else table


def _decoded(stream: IO[bytes], source: str) -> Iterator[str]:
    for number, raw in enumerate(stream, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{source}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x})") from None


def _filled(lines: Iterator[tuple[int, str]], source: str) -> Iterator[tuple[int, str]]:
    """Lines that hold something; empty ones may come at the end only."""
    empty: int | None = None
    for number, line in lines:
        if not line.strip():
            empty = empty or number
            continue
        if empty is not None:
            raise UserError(f"{source}, line {empty}: nothing there; leave empty lines out")
        yield number, line


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False
