"""Texts whose words are split already, and a tag for each word: lists, texts split at spaces, and CoNLL's files."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from structune.data.cells import as_text
from structune.data.formats.content import read_content
from structune.data.formats.text import decode
from structune.data.table import Table
from structune.errors import UserError

CONLL = frozenset({".conll", ".conllu", ".conll2003", ".iob", ".iob2", ".bio"})
"""Endings of files with a word and its tag in each line, and an empty line between texts."""


def word_lists(table: Table, column: str, field: str) -> list[list[str]]:
    """A list of texts in each cell of a column: a list as it is, or a text of one, or a text split at spaces.

    Raises:
        UserError: there is no such column, or a cell is empty or holds something else; names row and value.
    """
    cells = table.values(column, field)
    lists = [_words(cell) for cell in cells]
    if wrong := [row for row, words in enumerate(lists) if not words]:
        raise UserError(
            f"data.{field} = {column!r}: {len(wrong)} of {len(cells)} rows of {table.source} hold no list of words "
            f"there, such as {str(cells[wrong[0]])[:40]!r} ({table.places(wrong)}). Give lists, or texts with spaces."
        )
    return [words for words in lists if words]


def refuse_other_lengths(table: Table, words: list[list[str]], tags: list[list[str]], column: str) -> None:
    """Raises `UserError` where there are not as many tags as words."""
    wrong = [row for row in range(len(words)) if len(words[row]) != len(tags[row])]
    if wrong:
        row = wrong[0]
        raise UserError(
            f"data.label = {column!r}: {len(wrong)} of {len(words)} rows of {table.source} have not as many tags as "
            f"words: {len(tags[row])} for {len(words[row])} ({table.places(wrong)}). Give one tag for each word."
        )


def read_conll(path: str | Path, field: str, encoding: str | None, words: str, tags: str) -> Table | None:
    """A CoNLL file as a table with a row for each text; None where the ending is of another kind.

    The word stands first and its tag last in each line, between tabs or, without any, spaces. Lines that begin with
    `-DOCSTART-`, and comments (`# ` and another number of fields), are passed over.

    Args:
        path: the file.
        field: the recipe's field that names it, for messages.
        encoding: of the file, where it is not UTF-8.
        words: what to call the column of words.
        tags: what to call that of tags.

    Raises:
        UserError: the file cannot be read, or a line has no tag.
    """
    if not any(Path(path).name.lower().removesuffix(".gz").endswith(ending) for ending in CONLL):
        return None
    where = f"data.{field} = {str(path)!r}"
    text = decode(read_content(Path(path), where).raw, where, encoding)
    split: Callable[[str], list[str]] = (lambda line: line.split("\t")) if "\t" in text else str.split
    rows = [(number, split(line.rstrip("\r\n"))) for number, line in enumerate(text.split("\n"), start=1)]
    counts = Counter(len(fields) for _, fields in rows if any(map(str.strip, fields)))
    usual = counts.most_common(1)[0][0]
    texts: list[list[list[str]]] = []
    lines: list[int] = []
    begun = False
    for number, fields in _lines(rows, usual):
        if not fields:
            begun = False
            continue
        if len(fields) != usual or usual < 2:
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields where most lines have {usual}: each line is a word, and "
                f"its tag at the end, between tabs or spaces; an empty line ends a text"
            )
        if not begun:
            texts.append([[], []])
            lines.append(number)
            begun = True
        texts[-1][0].append(fields[0].strip())
        texts[-1][1].append(fields[-1].strip())
    return Table(str(path), {words: [text[0] for text in texts], tags: [text[1] for text in texts]}, lines)


def _lines(rows: list[tuple[int, list[str]]], usual: int) -> Iterator[tuple[int, list[str]]]:
    """Lines with their fields, of which an empty one has none, without those that hold no word."""
    for number, fields in rows:
        if not any(map(str.strip, fields)):
            yield number, []
        elif fields[0] != "-DOCSTART-" and not (fields[0].lstrip().startswith("#") and len(fields) != usual):
            yield number, fields


def _words(cell: Any) -> list[str] | None:
    if isinstance(cell, str):
        return _written(cell) or cell.split()
    if not isinstance(cell, (list, tuple)) or any(isinstance(item, (list, dict, bytes)) for item in cell):
        return None
    words = [as_text(item) for item in cell]
    return words if all(word.strip() for word in words) else None


def _written(text: str) -> list[str]:
    """The items of a list as JSON or Python writes it; none for any other text."""
    if not (text.strip().startswith("[") and text.strip().endswith("]")):
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(items, list) and all(isinstance(item, (str, int, float)) for item in items):
            return [as_text(item) for item in items]
    return []
