"""Whether double quotes enclose fields or are part of the texts, and whether they enclose too much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_KINDS = 50  # values of a column of labels, at most
_NUMBER = re.compile(r"[-+]?\d*\.?\d*([eE][-+]?\d+)?|NA|NaN|nan")


def enclose_rows(columns: dict[str, list[str]], lines: list[int], separator: str) -> list[int]:
    """Lines of rows with a field of several lines, some of which end or begin like whole rows.

    So it is where a quote that is never closed meets another one further down: the rows between become one text. The
    end of a row is known by the values of the last column, its beginning by those of the first, where these are few.
    """
    kinds = [set(values) if len(set(values)) <= _KINDS else set() for values in columns.values()]
    first, last = kinds[0], kinds[-1]
    found = []
    for number, line in enumerate(lines):
        inner = [part for values in columns.values() if "\n" in values[number] for part in _line_ends(values[number])]
        if any(end.rpartition(separator)[2] in last for end, _ in inner if separator in end) or any(
            begin.partition(separator)[0] in first for _, begin in inner if separator in begin
        ):
            found.append(line)
    return found


def _line_ends(field: str) -> Iterator[tuple[str, str]]:
    """What stands before and after each line break."""
    parts = [part.strip("\r") for part in field.split("\n")]
    return pairwise(parts)


def enclose_fields(text: str, separator: str) -> bool:
    """Whether the quotes of a tab-separated text are those of a program that encloses fields, doubling quotes inside.

    Such a program quotes by a rule: what could not be read back otherwise (pandas), that and what holds a comma
    (spreadsheets), or all that is no number (R). Where the quotes follow none of these they belong to the texts.
    """
    if '"' not in text:
        return False
    quoted: list[str] = []
    plain: list[str] = []
    header: list[bool] = []
    widths: set[int] = set()
    for row in _rows(text, separator):
        for is_quoted, content in row:
            if not is_quoted and '"' in content:
                return False
            (quoted if is_quoted else plain).append(content)
        header = header or [is_quoted for is_quoted, _ in row]
        widths.add(len(row))
    if not quoted or len(widths) > 1:
        return False
    lines = {line.count(separator) for line in re.split(r"[\r\n]+", text) if line}
    if len(lines) == 1 and any(char in content for content in quoted for char in f"\r\n{separator}"):
        return False  # "half, and in another row half": as texts of their own all rows are as long as the header
    others = [content for content in quoted if not any(char in content for char in f'"\r\n{separator}')]
    with_comma = (len(others) < len(quoted) or len(quoted) > 2) and all("," in content for content in others)
    return (
        not others
        or (with_comma and not any("," in content for content in plain))
        or (all(header) and all(_NUMBER.fullmatch(content) for content in plain))
    )


def _rows(text: str, separator: str) -> Iterator[list[tuple[bool, str]]]:
    """Rows of (whether it is enclosed, content), as if quotes enclosed fields wherever they can. No blank rows."""
    tab = re.escape(separator)
    field = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^{tab}\r\n]*))({tab}|\r\n|\r|\n|\Z)')
    row: list[tuple[bool, str]] = []
    place = 0
    while place < len(text) or row:
        match = field.match(text, place)
        assert match is not None  # a field may be empty
        row.append((True, match[1]) if match[1] is not None else (False, match[2]))
        place = match.end()
        if match[3] != separator:
            if row != [(False, "")]:
                yield row
            row = []
