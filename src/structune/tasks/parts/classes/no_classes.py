"""Labels that are no classes: several to a row, or scores. Numbered as classes they would train, and mean nothing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from structune.data.cells import as_text
from structune.data.empty_words import is_empty_word
from structune.data.numbers import NUMBER, as_numbers
from structune.data.table import Table
from structune.errors import UserError

_LIST = re.compile(r"\[.*\]|\(.*\)|\{.*\}", re.DOTALL)
_ITEM = re.compile(r"""'[^']*'|"[^"]*"|[^\s,]+""")
_PLAIN_ITEM = re.compile(rf"""'[^']*'|"[^"]*"|{NUMBER}|True|False|None|true|false|null""")
_INDICATORS = re.compile(r"[\[(]?\s*[01](\.0?)?([\s,;|]+[01](\.0?)?)+\s*[\])]?|[01]{3,}")
_SEPARATORS = "|;,"
_RARELY_SEPARATORS = "/+&"  # of names more often than of lists


def refuse_other_tasks(labels: Sequence[str], source: str, column: str) -> None:
    """Raises `UserError` where labels are lists, several names in one cell, rows of 0 and 1, or scores."""
    counts = Counter(labels)
    cells = f"df[{column!r}].astype(str)"
    if several := rows_of_indicators(counts):
        first = f"{cells}.str.findall('[01](?:[.]0?)?').map(lambda row: [cell[0] for cell in row].index('1'))"
        raise _several(counts, several, source, column, "the place of the 1 where there is one", first)
    if several := [label for label in counts if _length(label) not in (None, 1)]:
        split = "" if any(" " in label and "," not in label for label in several) else "','"
        first = f"{cells}.str.strip('[](){{}}').str.split({split}).str[0].str.strip(' \\'\"')"
        raise _several(counts, several, source, column, "the first of each list", first)
    if _are_scores(counts):
        raise UserError(
            f"data.label = {column!r}: {len(counts)} different labels in {len(labels)} rows of {source} "
            f"({_some(counts)}): these are numbers on a scale, not classes. To learn the numbers of texts, set "
            f"`task: text-regression`. For classes make a column of them, for example with "
            f"pandas df['class'] = pandas.cut({_as_numbers(counts, column)}, 3, "
            f"labels=['low', 'middle', 'high']), and set data.label to it."
        )
    if separator := separator_in(labels):
        several = _recombined(counts, separator)
        first = f"{cells}.str.split({separator!r}).str[0].str.strip()"
        raise _several(counts, several, source, column, "the first of each list", first, separator)


def separator_in(labels: Sequence[str]) -> str | None:
    """What stands between several names in one cell, as in `joy|anger`; None where cells are single names."""
    counts = Counter(labels)
    return next((separator for separator in _SEPARATORS if _recombined(counts, separator)), None)


def refuse_split_label(table: Table, column: str) -> None:
    """Raises `UserError` where there is no label column, but a column of 0 and 1 for each of several labels."""
    names = _indicator_columns(table)
    if column not in table and len(names) > 1:
        raise UserError(
            f"data.label = {column!r}: {table.source} has no such column, but {len(names)} columns of 0 and 1 "
            f"({_listed(names)}). For texts with several labels set `task: multi-label-classification` and data.labels "
            f"to these columns. To tell one from the rest, set data.label to its column. Where each row has exactly "
            f"one 1, make one column of them, with pandas "
            f"df['label'] = df[{names!r}].idxmax(axis=1)."
        )


def other_indicators(table: Table, column: str) -> Iterator[str]:
    """The doubt that the label is one of several, where other columns are of 0 and 1 too."""
    names = _indicator_columns(table)
    if column in names and len(names) > 2:
        others = [name for name in names if name != column]
        yield (
            f"data.label = {column!r}: {_listed(others)} of {table.source} are columns of 0 and 1 too; only {column!r} "
            f"is trained (for all at once there is `task: multi-label-classification`)"
        )


def combined_labels(labels: Sequence[str], column: str) -> Iterator[str]:
    """The doubt that labels such as `joy/anger` are several, where `joy` and `anger` are labels too."""
    counts = Counter(labels)
    for separator in _RARELY_SEPARATORS:
        if several := _recombined(counts, separator):
            rows = sum(counts[label] for label in several)
            yield f"data.label = {column!r}: {rows} rows have labels made of others, each a class ({_some(several)})"


def _indicator_columns(table: Table) -> list[str]:
    """The columns of 0 and 1, or false and true."""
    sets = {name: {cell.strip().lower().removesuffix(".0") for cell in cells} for name, cells in _columns(table)}
    return [name for name, values in sets.items() if values in ({"0", "1"}, {"false", "true"})]


def _columns(table: Table) -> list[tuple[str, list[str]]]:
    """Without those whose first rows show already that they hold something else."""
    return [
        (name, list(map(as_text, cells)))
        for name, cells in table.columns.items()
        if max((len(as_text(cell)) for cell in cells[:50]), default=0) <= 5
    ]


def _several(
    counts: Counter[str], several: Sequence[str], source: str, column: str, which: str, how: str, separator: str = ""
) -> UserError:
    rows = sum(counts[label] for label in several)
    more = f" with data.label_separator = {separator!r}" if separator else ""
    return UserError(
        f"data.label = {column!r}: {rows} of {counts.total()} rows of {source} hold lists of labels "
        f"({_some(several)}). For texts with several labels set `task: multi-label-classification`{more}. For one "
        f"class a row make a column, for example {which}, with pandas df['class'] = {how}, and set data.label to it."
    )


def _length(label: str) -> int | None:
    """How many elements a list as Python, JSON or NumPy writes it has; None for other texts."""
    if not _LIST.fullmatch(label):
        return None
    inner = label[1:-1].strip()
    items = _ITEM.findall(inner)
    if all(_PLAIN_ITEM.fullmatch(item) for item in items):
        return len(items)
    return len(inner.split(",")) if label[0] == "[" and "," in inner else None


def rows_of_indicators(counts: Counter[str]) -> list[str]:
    """Labels such as `0 1 0`, `[0, 1]` and `010`, if all are of one length and some have other than one 1.

    Digits alone (`100`, `101`, `110`) are whole numbers unless one begins with a 0.
    """
    if all(label.isdigit() and label[0] == "1" for label in counts):
        return []
    rows = [re.sub(r"\.0?|[^01]", "", label) for label in counts if _INDICATORS.fullmatch(label)]
    alike = len(rows) == len(counts) and len(set(map(len, rows))) == 1
    return list(counts) if alike and any(row.count("1") != 1 for row in rows) else []


def _are_scores(counts: Counter[str]) -> bool:
    """Numbers with many different fractions, or nearly all different. Grades in steps of a half are classes."""
    known = {label: count for label, count in counts.items() if not is_empty_word(label)}
    numbers = as_numbers(known)
    if not numbers:
        return False
    fractions = {round(number % 1, 6) for number in numbers.values()}
    if fractions == {0.0}:
        return False
    return (len(known) > 10 and len(fractions) >= 5) or len(known) > sum(known.values()) / 2


def _recombined(counts: Counter[str], separator: str) -> list[str]:
    """The labels with this separator, if most of them are made of parts that other labels have too.

    Parts that keep their places (`food|good`, `food|bad`, `service|good`) make names of one class each, and so do
    parts found nowhere else (`C, D`): several labels show in a later part that stands first or alone elsewhere.
    """
    parts = {label: [part.strip() for part in label.split(separator)] for label in counts}
    composite = [label for label, found in parts.items() if len(found) > 1 and all(found)]
    holders: dict[str, set[str]] = defaultdict(set)
    for label, found in parts.items():
        for part in found:
            holders[part].add(label)
    made_of_others = [label for label in composite if all(holders[part] - {label} for part in parts[label])]
    first = {found[0] for found in parts.values()}
    moves = any(part in first for label in composite for part in parts[label][1:])
    return composite if moves and 2 * len(made_of_others) > len(composite) else []


def _as_numbers(counts: Counter[str], column: str) -> str:
    text = f"df[{column!r}]"
    if any(label[-1:] == "%" or "/" in label for label in counts):
        text += ".str.replace('[%/].*', '', regex=True)"
    if any("," in label for label in counts):
        text += ".str.replace(',', '.')"
    return f"{text}.astype(float)" if ".str" in text else text


def _some(labels: Sequence[str] | Counter[str]) -> str:
    return ", ".join(repr(label[:40]) for label in list(labels)[:3]) + (", ..." if len(labels) > 3 else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "")
