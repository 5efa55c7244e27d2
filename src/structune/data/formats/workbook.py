"""Excel workbooks: a sheet whose first row names the columns."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

from structune.data.cells import as_text, is_empty
from structune.data.formats.content import is_zip
from structune.data.header import first_row_named
from structune.data.table import Table
from structune.errors import UserError
from structune.section import closest

Rows = list[tuple[int, tuple[Any, ...]]]
"""Those that are not empty, with their numbers."""


def is_workbook(raw: bytes) -> bool:
    """Whether it is a workbook as Excel has written them since 2007."""
    if not is_zip(raw):
        return False
    try:
        return any(name.startswith("xl/") for name in zipfile.ZipFile(io.BytesIO(raw)).namelist())
    except zipfile.BadZipFile:
        return False


def read_workbook(raw: bytes, source: str, sheet: str | None, names: Sequence[str] | None = None) -> Table:
    """The table of the sheet that is named, or of the only one that holds something.

    Args:
        raw: the workbook.
        source: the file, for messages.
        sheet: the sheet's name.
        names: the columns' names, for a sheet without a header.

    Raises:
        UserError: the workbook is damaged, there is no such sheet or no telling which, or it is no table.
    """
    sheets = _sheets(raw, source)
    filled = [name for name, rows in sheets.items() if rows]
    if sheet is None and len(filled) > 1:
        raise UserError(
            f"{source}: a workbook of {len(filled)} sheets; set data.sheet to one of {', '.join(map(repr, filled))}"
        )
    if sheet is not None and sheet not in sheets:
        raise UserError(
            f"{source}: data.sheet = {sheet!r}: no such sheet{closest(sheet, list(sheets))}; it has "
            f"{', '.join(map(repr, sheets))}"
        )
    if not filled or (sheet is not None and not sheets[sheet]):
        raise UserError(f"{source}: {'the workbook' if sheet is None else f'the sheet {sheet!r}'} is empty")
    return _table(sheets[sheet or filled[0]], source if sheet is None else f"{source}, sheet {sheet!r}", names)


def _sheets(raw: bytes, source: str) -> dict[str, Rows]:
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts of a workbook that the library leaves out, such as drop-down lists
            book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
            sheets = {}
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # some programs write wrong ones
                rows = enumerate(sheet.iter_rows(values_only=True), start=1)
                sheets[sheet.title] = [(number, row) for number, row in rows if not all(map(is_empty, row))]
            return sheets
    except Exception as error:  # noqa: BLE001  (whatever a damaged archive or sheet brings about)
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{source}: an Excel workbook, and damaged ({reason}); get it anew") from None


def _table(rows: Rows, source: str, names: Sequence[str] | None) -> Table:
    width = max(
        number for _, row in rows for number, cell in enumerate(row, start=1) if not is_empty(cell)
    )  # cells that were formatted and left empty are there too
    filled = [(number, [*row[:width], *[None] * (width - len(row))]) for number, row in rows]
    if names is None:
        header = [as_text(name).strip() or f"column {column + 1}" for column, name in enumerate(filled[0][1])]
        filled = filled[1:]
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise UserError(f"{source}: the header names {', '.join(map(repr, twice))} more than once. Rename one.")
        if not filled:
            raise UserError(f"{source}: a header and no rows. {first_row_named(header)}".strip())
    else:
        header = list(names)
        if len(header) != width:
            shown = ", ".join(repr(as_text(cell)[:30]) for cell in filled[0][1][:6])
            raise UserError(
                f"data.columns = {header!r}: {len(header)} names, but {source} has {width} columns (the first row: "
                f"{shown}). Name every column."
            )
    columns = {name: [row[column] for _, row in filled] for column, name in enumerate(header)}
    return Table(source, columns, [number for number, _ in filled], headed=names is None, unit="row")
