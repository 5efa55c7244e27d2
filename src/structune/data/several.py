"""One table from several files with the same columns."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence

from structune.data.table import Table
from structune.errors import UserError


def named_files(given: str | Sequence[str], field: str) -> list[str]:
    """The files of a name, or of a list of names; `*` in one stands for anything, as in a shell, in the order of names.

    Raises:
        UserError: nothing has such a name, or a file is named twice.
    """
    files = [file for name in ([given] if isinstance(given, str) else given) for file in _matching(name, field)]
    if twice := [file for number, file in enumerate(files) if file in files[:number]]:
        raise UserError(f"data.{field} = {given!r}: names {twice[0]!r} twice. Name it once.")
    return files


def read_together(given: str | Sequence[str], field: str, read: Callable[[str], Table]) -> Table:
    """The rows of all files that `named_files` gives, one file after the other.

    Raises:
        UserError: a file cannot be read, or has other columns than the first.
    """
    files = named_files(given, field)
    tables = [read(file) for file in files]
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables[1:]:
        if table.columns.keys() != first.columns.keys():
            raise UserError(
                f"data.{field} = {given!r}: {table.source} has other columns than {first.source}:"
                f"{_listed(' it lacks', first, table)}{_listed(' it has besides', table, first)}. "
                f"Files that are read together need the same."
            )
    units = {table.unit for table in tables}
    return Table(
        given if isinstance(given, str) else f"{first.source} and {len(tables) - 1} more",
        {name: [cell for table in tables for cell in table.columns[name]] for name in first.columns},
        [line for table in tables for line in table.lines],
        headed=all(table.headed for table in tables),
        unit=first.unit if len(units) == 1 else "row",
        files=[file for table in tables for file in table.files or [table.source] * len(table)],
    )


def _matching(name: str, field: str) -> list[str]:
    if "*" not in name or os.path.lexists(name):
        return [name]
    found = sorted(file for file in glob.glob(name, recursive=True) if os.path.isfile(file))
    if not found:
        raise UserError(
            f"data.{field} = {name!r}: no file has such a name; paths are taken from the current folder, {os.getcwd()}"
        )
    return found


def _listed(words: str, one: Table, other: Table) -> str:
    names = [repr(name) for name in one.columns if name not in other.columns]
    return f"{words} {', '.join(names)}" if names else ""
