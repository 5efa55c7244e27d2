"""Tables that lose nothing: whole in a pipe, and on a narrow terminal a few lines a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_FOR_ANY_TABLE = 10_000  # columns of the screen
_LONGEST = 240  # characters of a cell that holds a text


def pairs() -> Table:
    """An empty table of names and values; long values go on in the next line."""
    table = Table.grid("what", "value", padding=(0, 2))
    table.columns[1].overflow = "fold"
    return table


def records(title: str, rows: Mapping[str, Mapping[str, float | str]]) -> Table:
    """A table of numbers and words: a line for each name, and a column for each key."""
    table = Table(title, box=None, header_style="bold")
    for key, value in next(iter(rows.values()), {}).items():
        table.add_column(key, justify="left" if isinstance(value, str) else "right")
    for name, row in rows.items():
        table.add_row(escape(name), *map(cell, row.values()))
    return table


def cell(value: float | str) -> str:
    """A value as a table shows it."""
    if isinstance(value, str):
        line = " ".join(value.split())
        return escape(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…")
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def print_table(console: Console, table: Table) -> None:
    """Show a table; cells are broken between words at most.

    Where even so it is wider than a terminal, each row is a record: its first cell, then the others with their headers.
    In a pipe it is then as wide as its contents.
    """
    if table.show_header:
        _keep_words_whole(console, table)
    least, most = Measurement.get(console, console.options.update(max_width=_FOR_ANY_TABLE), table)
    if console.is_terminal and least > console.width and table.show_header:
        _print_records(console, table)
    elif console.is_terminal or least <= console.width:
        console.print(table, highlight=False)
    else:
        before = console.width
        console.width = most
        try:
            console.print(table, highlight=False)
        finally:
            console.width = before


def _keep_words_whole(console: Console, table: Table) -> None:
    """Let only those columns become narrower that hold several words, and are not to be kept on one line."""
    for column in table.columns:
        cells = [_text(console, cell) for cell in column._cells]
        column.no_wrap = column.no_wrap or not any(" " in cell.plain.strip() for cell in cells)
        if column.no_wrap:
            whole = [*cells, _text(console, column.header), _text(console, column.footer)]
            lines = [line for cell in whole for line in cell.split("\n")]
            column.min_width = max((line.cell_len for line in lines), default=0)


def _print_records(console: Console, table: Table) -> None:
    headers = [_text(console, column.header) for column in table.columns]
    rows = list(zip(*(column._cells for column in table.columns), strict=True))
    if table.show_footer:
        rows.append(tuple(column.footer for column in table.columns))
    if table.title:
        console.print(table.title, highlight=False)
    for row in rows:
        name, *values = (_text(console, cell) for cell in row)
        console.print(name, style="bold")
        items = [
            Text.assemble((header.plain.replace("\n", " "), "dim"), " ", value)
            for header, value in zip(headers[1:], values, strict=True)
            if value.plain
        ]
        for line in _lines(items, console.width - 2):
            console.print(Text.assemble("  ", line), highlight=False)
    if table.caption:
        console.print(table.caption, style="dim italic", highlight=False)


def _lines(items: list[Text], width: int) -> Iterator[Text]:
    """The items side by side, as many to a line as there is room for."""
    line = Text()
    for item in items:
        if line.plain and line.cell_len + 2 + item.cell_len > width:
            yield line
            line = Text()
        line = Text("  ").join([line, item]) if line.plain else item
    if line.plain:
        yield line


def _text(console: Console, cell: object) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)
