"""Parquet, Arrow and Feather: columns with types."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from structune.data.features import UNLABELLED, named
from structune.data.table import Table
from structune.errors import UserError

_STARTS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"FEA1": "a Feather file",
}
"""First bytes, and what they begin."""


def arrow_kind(raw: bytes) -> str | None:
    """What it is, such as `a Parquet file`; None for other bytes."""
    return next((kind for start, kind in _STARTS.items() if raw.startswith(start)), None)


def read_arrow(raw: bytes, source: str) -> Table:
    """The table, with the names of classes where the file says them, as the `datasets` library writes them.

    Raises:
        UserError: the file is damaged, has no row, or names a column twice.
    """
    import pyarrow

    try:
        table = _open(raw)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{source}: {arrow_kind(raw)}, and damaged ({reason}); get it anew") from None
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{source}: names {', '.join(map(repr, twice))} more than once. Rename one of them.")
    if not table.num_rows:
        raise UserError(f"{source}: columns ({', '.join(map(repr, names))}) and no rows")
    return _table(zip(names, columns, strict=True), table.schema, source, 0, table.num_rows)


def arrow_pieces(path: Path, source: str, rows: int) -> Iterator[Table]:
    """The rows of a Parquet file, at most so many at a time.

    Raises:
        UserError: the file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    done = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                columns = zip(batch.schema.names, (column.to_pylist() for column in batch.columns), strict=True)
                yield _table(columns, file.schema_arrow, source, done, batch.num_rows)
                done += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{source}: a Parquet file, and damaged ({reason}); get it anew") from None


def _table(columns: Iterable[tuple[str, list[Any]]], schema: Any, source: str, start: int, count: int) -> Table:
    features = _features(schema)
    cells = {name: [_missing_as_none(named(value, features.get(name))) for value in values] for name, values in columns}
    return Table(source, cells, list(range(start + 1, start + count + 1)), unit="row")


def _open(raw: bytes) -> Any:
    import pyarrow
    import pyarrow.feather
    import pyarrow.ipc
    import pyarrow.parquet

    buffer = pyarrow.BufferReader(raw)
    match arrow_kind(raw):
        case "a Parquet file":
            return pyarrow.parquet.read_table(buffer)
        case "an Arrow file":
            return pyarrow.ipc.open_file(buffer).read_all()
        case "an Arrow stream":
            return pyarrow.ipc.open_stream(buffer).read_all()
        case _:
            return pyarrow.feather.read_table(io.BytesIO(raw))


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library says of the columns, where it wrote the file."""
    if not schema.metadata or b"huggingface" not in schema.metadata:
        return {}
    import datasets

    return dict(datasets.Features.from_arrow_schema(schema))


def _missing_as_none(cell: Any) -> Any:
    return None if cell is UNLABELLED else cell
