"""A data set from the hub, through the `datasets` library."""

from __future__ import annotations

from structune.data.table import Table
from structune.errors import UserError


def load_hub(name: str, subset: str | None, split: str) -> Table:
    """One split as a table of text; class numbers become their names, and rows without a label (-1) are left out.

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
    columns: dict[str, list[str]] = {}
    for column, feature in rows.features.items():
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        columns[column] = [_cell(value, names) for value in rows[column]]
    kept = [row for row in range(len(rows)) if all(values[row] != _UNLABELLED for values in columns.values())]
    if not kept:
        raise UserError(f"{where}: no row of the split {split!r} has a label; name another split")
    return Table(
        f"{name}/{split}",
        {column: [values[row] for row in kept] for column, values in columns.items()},
        [row + 1 for row in kept],
    )


_UNLABELLED = "\0unlabelled"


def _cell(value: object, names: list[str] | None) -> str:
    if names is not None:
        return names[int(str(value))] if value is not None and int(str(value)) >= 0 else _UNLABELLED
    return "" if value is None else str(value)
