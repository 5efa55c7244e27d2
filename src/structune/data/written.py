"""Examples as a file that is read again: the parts that a study makes of its data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.errors import UserError
from structune.files import write_text


def write_examples(examples: Examples, path: Path, section: DataSection) -> Path:
    """Write a column for each input and one for the label: CSV where all cells are texts, else JSON Lines.

    Args:
        examples: what is written.
        path: of the file, without an ending.
        section: whose keys of the inputs' names, and `label`, name the columns.

    Returns:
        The file.

    Raises:
        UserError: a cell is nothing that JSON has words for.
    """
    header = [str(getattr(section, name, None) or name) for name in (*examples.inputs, "label")]
    return write_rows(header, [[*inputs, label] for inputs, label in examples.rows()], path)


def write_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], path: Path) -> Path:
    """Write rows under these names of columns: CSV where all cells are texts, else JSON Lines; the file.

    Raises:
        UserError: a cell is nothing that JSON has words for.
    """
    if all(isinstance(cell, str) for row in rows for cell in row):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        return _written(path.with_name(f"{path.name}.csv"), text.getvalue())
    lines = [_line(dict(zip(header, row, strict=True)), path) for row in rows]
    return _written(path.with_name(f"{path.name}.jsonl"), "".join(lines))


def _line(row: dict[str, Any], path: Path) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: these examples cannot be written into a file ({error}); give the parts as files of their own"
        ) from None


def _written(path: Path, content: str) -> Path:
    write_text(path, content)
    return path
