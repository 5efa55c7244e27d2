"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, names in the first column and numbers in the others."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(markdown_row(cells) for cells in (header, rule, *rows))


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a table; what is in the cells cannot end them."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
