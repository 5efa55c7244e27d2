"""Cells as numbers to be learned."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from structune.data.numbers import as_numbers
from structune.data.table import Table
from structune.errors import UserError

_BINS = 10  # of a split, at most
_IN_A_BIN = 20  # rows, at least
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")


def numbers_in(table: Table, column: str, field: str) -> list[float]:
    """The number in each cell of a column, written with a point or a comma, in percent or out of something.

    Raises:
        UserError: a cell holds none, or its comma may be of thousands; names row, value and fix.
    """
    cells = table.values(column, field)
    where = f"data.{field} = {column!r}"
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    _refuse_thousands(table, cells, where)
    found = as_numbers(set(texts))
    if texts and not found and all(as_numbers([text]) for text in texts):
        raise UserError(
            f"{where}: the numbers of {table.source} are measured differently ({_some(texts)}); write all in one way"
        )
    numbers = [_number(cell, found) for cell in cells]
    if wrong := [row for row, number in enumerate(numbers) if number is None]:
        raise UserError(
            f"{where}: {len(wrong)} of {len(cells)} rows of {table.source} hold no number there, such as "
            f"{str(cells[wrong[0]])[:40]!r} ({table.places(wrong)}). Correct or delete these rows, or set data.{field} "
            f"to a column of numbers; for names of classes there is `task: text-classification`."
        )
    return [number for number in numbers if number is not None]


def quantile_names(numbers: Sequence[float]) -> list[str]:
    """For each number the name of its quantile, of at most ten that have twenty rows each; equal ones are in one."""
    bins = min(_BINS, max(len(numbers) // _IN_A_BIN, 1))
    ranked = sorted(numbers)
    edges = [ranked[len(ranked) * number // bins] for number in range(1, bins)]
    return [str(bisect_right(edges, number)) for number in numbers]


def _number(cell: Any, found: dict[str, float]) -> float | None:
    """The number of a cell, if it is one and finite."""
    if isinstance(cell, str):
        number = found[cell.strip()] if found else next(iter(as_numbers([cell.strip()]).values()), None)
    else:
        number = float(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else None
    return number if number is not None and math.isfinite(number) else None


def _refuse_thousands(table: Table, cells: Sequence[Any], where: str) -> None:
    """Raises `UserError` where a comma may be the point of a fraction, or set thousands apart."""
    texts = {row: cell.strip() for row, cell in enumerate(cells) if isinstance(cell, str) and "," in cell}
    doubtful = [row for row, text in texts.items() if _THOUSANDS.fullmatch(text)]
    pointed = any(isinstance(cell, str) and "." in cell for cell in cells)
    if doubtful and (pointed or len(doubtful) == len(texts)):
        text = texts[doubtful[0]]
        raise UserError(
            f"{where}: {text!r} of {table.source} ({table.places(doubtful)}) may be {text.replace(',', '.')} or "
            f"{text.replace(',', '')}; write numbers with a point, and without commas between thousands"
        )


def _some(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, list(dict.fromkeys(texts))[:3]))
