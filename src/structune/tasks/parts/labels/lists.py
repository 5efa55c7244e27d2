"""Cells that hold any number of labels: lists, texts of lists, separated names, or a column of 0 and 1 for each."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from structune.data.cells import as_text, is_empty
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.classes.no_classes import rows_of_indicators, separator_in

_LIST = re.compile(r"\[.*\]|\(.*\)|\{.*\}", re.DOTALL)
_ITEM = re.compile(r"""'[^']*'|"[^"]*"|[^\s,]+""")
_YES, _NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


def label_lists(table: Table, column: str, separator: str | None) -> list[list[str]]:
    """The labels in each cell of a column, sorted, each once; none where there is nothing.

    A cell is a list, a text of one as Python, JSON or NumPy writes it, names between separators, or one name.

    Raises:
        UserError: there is no such column, cells hold rows of 0 and 1, or names between separators where none is given.
    """
    cells = table.values(column, "label", allow_empty=True)
    where = f"data.label = {column!r}"
    found = [_labels(cell, separator) for cell in cells]
    if wrong := [row for row, labels in enumerate(found) if labels is None]:
        raise UserError(
            f"{where}: {len(wrong)} of {len(cells)} rows of {table.source} hold no labels there, such as "
            f"{str(cells[wrong[0]])[:40]!r} ({table.places(wrong)}); give lists of names or numbers"
        )
    lists = [labels or [] for labels in found]
    texts = Counter(as_text(cell).strip() for cell in cells if not is_empty(cell))
    if rows_of_indicators(texts) or _are_indicators(lists):
        raise UserError(
            f"{where}: the cells of {table.source} are rows of 0 and 1, such as {str(cells[0])[:40]!r}, which do not "
            f"say what each place is for. Make a column of 0 and 1 for each label, and name them in data.labels."
        )
    singles = [labels[0] for labels in lists if len(labels) == 1]
    if separator is None and (likely := separator_in(singles)):
        raise UserError(
            f"{where}: cells of {table.source} look like labels with {likely!r} between them, such as "
            f"{next(label for label in singles if likely in label)!r}. Set data.label_separator to {likely!r}."
        )
    return [sorted(set(labels)) for labels in lists]


def indicated(table: Table, columns: Sequence[str]) -> list[list[str]]:
    """For each row the columns that have a 1 there, sorted.

    Raises:
        UserError: there is no such column, or it has something else than 0 and 1; names row, value and fix.
    """
    rows: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns:
        cells = [as_text(cell).strip().lower() for cell in table.values(column, "labels")]
        if wrong := [row for row, cell in enumerate(cells) if cell not in _YES | _NO]:
            raise UserError(
                f"data.labels: the column {column!r} of {table.source} has {cells[wrong[0]][:40]!r} "
                f"({table.places(wrong)}), and is to have 0 and 1 (or false and true) for each label. Correct it; or "
                f"set data.label to one column of lists, and remove data.labels."
            )
        for row, cell in enumerate(cells):
            if cell in _YES:
                rows[row].append(column)
    return [sorted(labels) for labels in rows]


def _labels(cell: Any, separator: str | None) -> list[str] | None:
    """The labels of a cell as they stand; None where it holds none of what labels are."""
    if is_empty(cell):
        return []
    if isinstance(cell, (list, tuple)):
        items = [as_text(item).strip() for item in cell if not isinstance(item, (dict, list, bytes))]
        return items if len(items) == len(cell) and all(items) else None
    if not isinstance(cell, (str, int, float)):
        return None
    text = as_text(cell).strip()
    if _LIST.fullmatch(text) and separator is None:
        return _written(text)
    return [part.strip() for part in text.split(separator) if part.strip()] if separator else [text]


def _written(text: str) -> list[str]:
    """The items of a list as Python, JSON or NumPy writes it; names without quotes are between commas."""
    joined = re.search(r"""['"]\s+['"]""", text)  # as NumPy writes; Python would make one text of two neighbours
    for read in () if joined else (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(items, (list, tuple, set)):
            return [as_text(item).strip() for item in items]
    inner = text[1:-1].strip()
    quoted = "'" in inner or '"' in inner
    parts = inner.split(",") if "," in inner and not quoted else _ITEM.findall(inner)
    return [part.strip().strip("'\"") for part in parts]


def _are_indicators(lists: Sequence[Sequence[str]]) -> bool:
    """Whether all are of one length and hold only 0 and 1, some of them more than once."""
    sizes = {len(labels) for labels in lists}
    only = all(label in _YES | _NO for labels in lists for label in labels)
    return only and len(sizes) == 1 and any(len(set(labels)) < len(labels) for labels in lists)
