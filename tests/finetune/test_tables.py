"""Tables lose nothing, however narrow the screen."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from structune.finetune.tables import pairs, print_table

NAMES = ["a_class_with_quite_a_long_name[v2]", "不好", "b"]


def shown(table: Table, width: int, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True)
    print_table(console, table)
    assert console.width == width
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]


def table() -> Table:
    made = Table("class", "p\nof it", "recall", "examples", title="[bold]three[/]", caption="all", show_footer=True)
    made.columns[3].footer = "99"
    for number, name in enumerate(NAMES):
        made.add_row(escape(name), f"0.12{number}", f"0.45{number}", f"{number},234")
    return made


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_wide_enough(width: int, terminal: bool) -> None:
    text = shown(table(), width, terminal)
    row = next(line for line in text.splitlines() if NAMES[0] in line)
    assert [part.strip() for part in re.split("[│┃]", row)][1:5] == [NAMES[0], "0.120", "0.450", "0,234"]


def test_in_a_pipe_as_wide_as_needed() -> None:
    assert shown(table(), 24, terminal=False) == shown(table(), 90, terminal=False)


@pytest.mark.parametrize("width", [40, 24])
def test_on_a_narrow_terminal_a_record_a_row(width: int) -> None:
    text = shown(table(), width, terminal=True)
    assert "".join(text.splitlines()[0]) == "three"
    for number, name in enumerate(NAMES):
        record = "".join(text.split())
        assert f"{name}pofit0.12{number}recall0.45{number}examples{number},234" in record
    assert "examples 99" in text
    assert text.endswith("all\n")
    assert max(map(len, text.splitlines())) <= width


def test_cells_of_several_words_are_broken_between_them() -> None:
    made = Table("name", "target", "number", box=None)
    made.add_row("a_long_name_of_one_word", "so many words are in here", "1234")
    for terminal in (True, False):
        lines = shown(made, 50, terminal).splitlines()
        assert max(map(len, lines)) <= 50
        assert len(lines) > 2
        assert lines[1].split()[0] == "a_long_name_of_one_word"
        assert "…" not in "".join(lines)


def test_pairs_go_on_in_the_next_line() -> None:
    made = pairs()
    path = "/a/very/long/path/" + "x" * 60
    made.add_row("saved in", path)
    assert "".join(shown(made, 40, terminal=True).split()) == f"savedin{path}"
    assert f"saved in  {path}" in shown(made, 40, terminal=False)
