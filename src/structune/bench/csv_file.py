"""Results as comma-separated values: one line a method and case, worked out."""

from __future__ import annotations

import csv
import io
from typing import Any

from structune.bench.lines import Line, Spread, lines
from structune.bench.results import CaseResult, Results


def to_csv(results: Results) -> str:
    """The text of the file. Empty: not measured."""
    entries = [_entry(results, case, line) for case in results.cases for line in lines(results, case)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(entries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return text.getvalue()


def _entry(results: Results, case: CaseResult, line: Line) -> dict[str, Any]:
    row = line.row
    verdicts = [(quantity, verdict) for quantity, found in line.verdicts.items() for verdict in found]
    return {
        "suite": results.suite["name"],
        "device": results.machine["gpu"] or results.machine["cpu"],
        "case": case.name,
        "dtype": case.dtype,
        "method": row.method,
        "algorithm": row.algorithm,
        "trainable": row.trainable,
        **_spread("ms", line.ms),
        **_spread("ratio", line.ratio),
        "saved_bytes": row.saved,
        "saved_inputs_bytes": row.saved_inputs,
        "saved_beyond_frozen_bytes": line.saved,
        "peak_bytes": row.peak,
        "peak_beyond_frozen_bytes": line.peak,
        "targets": "; ".join(f"{quantity} <= {verdict.bound}" for quantity, verdict in verdicts),
        "met": "; ".join("yes" if verdict.met else "no" for _, verdict in verdicts),
        "note": row.note,
    }


def _spread(name: str, spread: Spread | None) -> dict[str, Any]:
    values = (None,) * 3 if spread is None else (spread.median, spread.p20, spread.p80)
    keys = ("median", "p20", "p80")
    return {
        f"{name}_{key}": None if value is None else round(value, 4) for key, value in zip(keys, values, strict=True)
    }
