"""All runs of a study as one Parquet file, a row each."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structune.files import write_bytes
from structune.study.report.cells import Cell

_PARTS = ("validation", "test", "untrained", "validation_curve")
_AS_TEXT = ("settings", "tried")
_CURVE = "curve"


def write_runs(cells: Sequence[Cell], path: Path) -> None:
    """Write every result: scores as `validation_…` and `test_…`, versions as `versions_…`, settings as JSON text.

    A run whose numbers ran away has no scores. `chosen` says which runs are those of the table; a result that
    does not count for the study as it is now is none of them. The training losses are two lists, `curve_step` and
    `curve_loss`, and what was scored while training lists `validation_curve_…`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = [_row(run, run in cell.scored) for cell in cells for run in (*cell.runs, *cell.left_out)]
    columns = dict.fromkeys(key for row in rows for key in row)
    content = io.BytesIO()
    parquet.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), content)
    write_bytes(path, content.getvalue())


def _row(run: dict[str, Any], chosen: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"task": run["task"], "method": run["method"], "chosen": chosen}
    for key, value in run.items():
        if key in (*_PARTS, "versions"):
            row |= {f"{key}_{name}": entry for name, entry in (value or {}).items()}
        elif key in _AS_TEXT:  # what differs in its keys, and in the kinds of their values, is no column
            row[key] = json.dumps(value, ensure_ascii=False)
        elif key == _CURVE:
            row |= {"curve_step": [step for step, _ in value], "curve_loss": [loss for _, loss in value]}
        elif key not in row:
            row[key] = value
    return row
