"""A data set from the hub, through the `datasets` library."""

from __future__ import annotations

from typing import Any

from structune.data.features import UNLABELLED, named
from structune.data.table import Table
from structune.errors import UserError


def load_hub(name: str, subset: str | None, split: str) -> Table:
    """One split as a table; class numbers become their names, and rows without a label (-1) are left out.

    Images are left as they are stored: the bytes and path of a file.

    Raises:
        UserError: the data set, its subset or its split cannot be had.
    """
    import datasets

    where = f"data.hub = {name!r}" + (f" ({subset})" if subset else "")
    try:
        rows = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # noqa: BLE001  (the library raises many kinds, from network to naming)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{where}: the split {split!r} cannot be loaded: {reason[0]}") from None
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    columns = {column: [_cell(value, feature) for value in rows[column]] for column, feature in rows.features.items()}
    kept = [row for row in range(len(rows)) if all(values[row] is not UNLABELLED for values in columns.values())]
    if not kept:
        raise UserError(f"{where}: no row of the split {split!r} has a label; name another split")
    return Table(
        f"{name}/{split}",
        {column: [values[row] for row in kept] for column, values in columns.items()},
        [row + 1 for row in kept],
        unit="row",
    )


def _cell(value: Any, feature: Any) -> Any:
    """As `named`; false and true as they were written before cells had types."""
    cell = named(value, feature)
    return str(cell) if isinstance(cell, bool) else cell
