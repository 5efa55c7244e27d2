"""Rows of answers, written as they come: CSV, JSON Lines or Parquet, whole or not at all."""

from __future__ import annotations

import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from structune.data.cells import as_text, is_binary
from structune.doubt import say
from structune.errors import UserError
from structune.files import new_file

Row = Mapping[str, Any]

ENDINGS = (".csv", ".jsonl", ".parquet")


class Writer(ABC):
    """Takes rows with the same columns, a piece at a time."""

    keeps_bytes = False
    columns: tuple[str, ...] = ()
    """Those that are written, from the first rows on."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows.

        Raises:
            UserError: they have other columns than the first ones.
        """
        if not rows:
            return
        if not self.columns:
            self.columns = self._kept(rows)
            self.begin(rows)
            self._whole = set(rows[0])
        if other := self._whole ^ set(rows[0]):
            raise UserError(
                f"rows that come later have other columns than the first ({', '.join(map(repr, sorted(other)))}); give "
                f"all the same"
            )
        self.add([{name: row[name] for name in self.columns} for row in rows])

    def begin(self, rows: Sequence[Row]) -> None:  # noqa: B027  (most have nothing to do)
        """Write what stands before the rows, of which these are the first."""

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> None:
        """Write rows of the columns that are written."""

    def end(self) -> None:  # noqa: B027
        """Write what stands after the rows."""

    def _kept(self, rows: Sequence[Row]) -> tuple[str, ...]:
        binary = [name for name in rows[0] if not self.keeps_bytes and any(is_binary(row[name]) for row in rows)]
        if binary:
            say([f"the columns {', '.join(map(repr, binary))} hold bytes, and are left out; Parquet would keep them"])
        return tuple(name for name in rows[0] if name not in binary)


class CsvWriter(Writer):
    """Comma-separated with a header; what is no text as JSON writes it."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.writer = csv.writer(file, lineterminator="\n")

    def begin(self, rows: Sequence[Row]) -> None:
        self.writer.writerow(self.columns)

    def add(self, rows: Sequence[Row]) -> None:
        self.writer.writerows([as_text(value) for value in row.values()] for row in rows)
        self.file.flush()


class JsonLinesWriter(Writer):
    """An object a line; numbers that JSON has no words for are null."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            known = {name: None if _is_no_number(value) else value for name, value in row.items()}
            self.file.write(json.dumps(known, ensure_ascii=False, default=str) + "\n")
        self.file.flush()


class ParquetWriter(Writer):
    """Columns with the types of the first rows; one that is empty there is of texts."""

    keeps_bytes = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def begin(self, rows: Sequence[Row]) -> None:
        import pyarrow
        import pyarrow.parquet

        fields = [
            pyarrow.field(each.name, pyarrow.string() if pyarrow.types.is_null(each.type) else each.type)
            for each in self._table(rows, None).schema
        ]
        self.schema = pyarrow.schema(fields)
        self.writer = pyarrow.parquet.ParquetWriter(self.path, self.schema)

    def add(self, rows: Sequence[Row]) -> None:
        self.writer.write_table(self._table(rows, self.schema))

    def _table(self, rows: Sequence[Row], schema: Any) -> Any:
        import pyarrow

        try:
            return pyarrow.Table.from_pylist(list(rows), schema)
        except (pyarrow.ArrowException, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"a column of Parquet has values of one kind, and here are several ({reason}); write .jsonl or .csv"
            ) from None

    def end(self) -> None:
        if self.writer is not None:
            self.writer.close()


def check_answers_file(out: Path, overwrite: bool) -> None:
    """Raises `UserError` when answers cannot be written there; writes nothing."""
    if out.suffix.lower() not in ENDINGS:
        raise UserError(
            f"--out {str(out)!r}: cannot tell the kind of file from its ending; known: {', '.join(ENDINGS)}"
        )
    if out.is_dir():
        raise UserError(f"--out {str(out)!r}: is a folder; name a file")
    if out.exists() and not overwrite:
        raise UserError(f"--out {str(out)!r}: is there already; use --overwrite, or choose another name")


@contextmanager
def answers_file(out: Path) -> Iterator[Writer]:
    """What writes to `out`, by its ending. The file is there at the end of the block, whole, and not after an error.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with new_file(out) as temporary:
            if out.suffix.lower() == ".parquet":
                writer: Writer = ParquetWriter(temporary)
                yield writer
                writer.end()
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    writer = CsvWriter(file) if out.suffix.lower() == ".csv" else JsonLinesWriter(file)
                    yield writer
                    writer.end()
    except OSError as error:
        raise UserError(f"--out {str(out)!r}: cannot be written ({error.strerror or error})") from None


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
