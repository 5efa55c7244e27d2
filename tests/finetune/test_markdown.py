"""Markdown tables keep their columns whatever is in the cells."""

from __future__ import annotations

from structune.finetune.markdown import markdown_row, markdown_table


def test_a_bar_in_a_cell_ends_no_cell() -> None:
    assert markdown_row(["a|b", "1"]) == "| a\\|b | 1 |"


def test_table() -> None:
    assert markdown_table(["name", "n"], [["x", "1"], ["y", "2"]]) == (
        "| name | n |\n| --- | ---: |\n| x | 1 |\n| y | 2 |"
    )
