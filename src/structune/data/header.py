"""Whether the first line of a file names its columns, or is a row like the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from structune.data.cells import as_text
from structune.doubt import say
from structune.errors import UserError

_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)")
_WORDS = 5  # that a column's name hardly has
_CLASSES = 50


def first_row_named(header: Sequence[str], columns: Sequence[Sequence[Any]] = ()) -> str:
    """How to read a file whose first line is a row; nothing where no field of that line looks like a row's."""
    if _are_numbered(header):
        return ""
    filled = [[str(name), *map(as_text, cells)] for name, cells in zip_longest(header, columns, fillvalue=())]
    if not any(_is_a_value(name, values[1:]) for name, values in zip(header, filled, strict=True)):
        return ""
    return (
        f"Its first line looks like a row ({', '.join(repr(name[:30]) for name in header[:4])}). If the file has no "
        f"header, name its columns, and that row is kept: data.columns: [{', '.join(_names(filled))}]"
    )


def refuse_lost_row(columns: dict[str, list[Any]], text: str, label: str, source: str) -> None:
    """Raises `UserError` where both names are a row's; warns where that of the label alone is, as a name may be."""
    if _are_numbered(list(columns)) or not _is_a_value(label, list(map(as_text, columns[label]))):
        return
    advice = first_row_named(list(columns), list(columns.values()))
    if _is_a_value(text, list(map(as_text, columns[text]))):
        raise UserError(f"{source}: data.text = {text!r} and data.label = {label!r} are no names of columns. {advice}")
    say([f"data.label = {label!r}: the name of the column is one of its labels in {source}. {advice}"])


def _names(columns: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns: `text` for the longest on average, `label` for that of the fewest values."""
    width = [sum(map(len, values)) / len(values) for values in columns]
    kinds = [len(set(values)) for values in columns]
    text = max(range(len(width)), key=width.__getitem__)
    others = [number for number in range(len(width)) if number != text]
    label = min(others, key=lambda number: (kinds[number] < 2, kinds[number], width[number]), default=None)
    return [{text: "text", label: "label"}.get(number, f"column{number + 1}") for number in range(len(width))]


def _are_numbered(header: Sequence[str]) -> bool:
    """Whether these are the numbers that pandas gives to columns without names, perhaps after that of its index."""
    names = list(header[1:] if header[0] == "" else header)
    return names == [str(number) for number in range(len(names))]


def _is_a_value(name: str, values: Sequence[str]) -> bool:
    return _is_number(name) or _is_sentence(name) or _is_among(name, values)


def _is_number(name: str) -> bool:
    return bool(_NUMBER.fullmatch(name.strip()))


def _is_sentence(name: str) -> bool:
    return len(name.split()) >= _WORDS or len(name) > 60


def _is_among(name: str, values: Sequence[str]) -> bool:
    """Whether the name is one of the column's values, which are few or repeat."""
    kinds = {value.strip() for value in values}
    return name.strip() in kinds and len(kinds) <= min(_CLASSES, max(2, len(values) / 2))
