"""A table: columns by name, whose mistakes are told by row, column, value and fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from structune.data.cells import as_text, is_binary, is_empty
from structune.data.header import first_row_named
from structune.errors import UserError
from structune.section import closest


@dataclass(frozen=True)
class Table:
    """Columns of equal length, whose cells are of the types that their source has: texts, numbers, lists, bytes, ….

    Attributes:
        source: where they are from, for messages.
        columns: a list of cells for each name.
        lines: where each row is, from 1: the line on which it starts.
        headed: whether the names are those in the first line of a file.
        unit: what `lines` counts.
        files: the file of each row, where there are several.
    """

    source: str
    columns: dict[str, list[Any]]
    lines: list[int]
    headed: bool = False
    unit: str = "line"
    files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: str) -> bool:
        """Whether `values` finds cells of this name."""
        return self._find(name) is not None

    def column(self, name: str, field: str) -> list[str]:
        """The column a recipe's `data.<field>` names, as texts: what is none as JSON writes it.

        Raises:
            UserError: no such column, or an empty entry in it, or one that is no text: bytes.
        """
        values = self.values(name, field)
        if binary := [row for row, value in enumerate(values) if is_binary(value)]:
            raise UserError(
                f"data.{field} = {name!r}: {len(binary)} of {len(values)} rows of {self.source} hold bytes there, such "
                f"as those of an image, and no text ({self.places(binary)}). Set data.{field} to another column."
            )
        return [as_text(value) for value in values]

    def values(self, name: str, field: str, allow_empty: bool = False) -> list[Any]:
        """The column a recipe's `data.<field>` names, its cells as they are.

        `label.name` is the entry `name` of what the cells of `label` hold, unless there is a column of that name.

        Raises:
            UserError: no such column, or (unless `allow_empty`) an empty entry in it.
        """
        found = self._find(name)
        if found is None:
            raise UserError(self._missing(name, field))
        empty = [] if allow_empty else [row for row, value in enumerate(found) if is_empty(value)]
        if empty:
            raise UserError(
                f"data.{field} = {name!r}: {len(empty)} of {len(found)} rows of {self.source} have nothing there "
                f"({self.places(empty)}). Fill them in or delete the rows."
            )
        return found

    def places(self, rows: Sequence[int]) -> str:
        """Where the first of these rows are, for messages: `line 3, 7, ...`, `line 3 of a.csv, line 1 of b.csv`."""
        more = ", ..." if len(rows) > _PLACES else ""
        if self.files is None:
            return f"{self.unit} {', '.join(str(self.lines[row]) for row in rows[:_PLACES])}{more}"
        named = [
            self.files[row] if self.unit == "file" else f"{self.unit} {self.lines[row]} of {self.files[row]}"
            for row in rows[:_PLACES]
        ]
        return ", ".join(named) + more

    def _find(self, name: str) -> list[Any] | None:
        if name in self.columns:
            return self.columns[name]
        alike = [column for column in self.columns if column.strip() == name.strip()]
        if len(alike) == 1:
            return self.columns[alike[0]]
        outer, *keys = name.split(".")
        cells = self.columns.get(outer)
        if cells is None or not keys:
            return None
        for key in keys:
            if not any(isinstance(cell, dict) and key in cell for cell in cells):
                return None
            cells = [cell.get(key) if isinstance(cell, dict) else None for cell in cells]
        return cells

    def _missing(self, name: str, field: str) -> str:
        names = list(self.columns)
        advice = first_row_named(names, list(self.columns.values())) if self.headed else ""
        outer = name.partition(".")[0]
        inside = [
            f"{column}.{key}"
            for column, cells in self.columns.items()
            for key in dict.fromkeys(key for cell in cells[:_LOOKED_INTO] if isinstance(cell, dict) for key in cell)
        ]
        known = [*(entry for entry in inside if entry.partition(".")[0] == outer), *names] if outer in names else names
        listed = ", ".join(map(repr, known))
        return (
            f"data.{field} = {name!r}: {self.source} has no such column{closest(name, [*names, *inside])}; "
            f"it has {listed}. {advice}{'; else set' if advice else 'Set'} data.{field} to one of them."
        )


_PLACES = 5  # that a message names
_LOOKED_INTO = 100  # cells, for the names of what they hold
