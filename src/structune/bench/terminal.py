"""A finished case as a table on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from structune.bench.growth import is_growth
from structune.bench.lines import Line, lines
from structune.bench.markdown import growth_cells
from structune.bench.method import FROZEN
from structune.bench.results import CaseResult, Results
from structune.finetune.tables import print_table

WIDE = 100  # columns of a terminal from which all columns of the table fit


def print_results(results: Results, console: Console) -> None:
    """Show a table a case; of a growth suite, one table of exponents."""
    if is_growth(results):
        _print_growth(results, console)
    else:
        for case in results.cases:
            _print_case(results, case, console)


def _print_growth(results: Results, console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    header, *rows = growth_cells(results)
    for number, title in enumerate(header):
        table.add_column(title.replace(": ", ":\n"), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print("\n[bold]fitted exponents[/]", highlight=False)
    print_table(console, table)
    for case in results.cases:
        _print_notes(case, console)


def _print_case(results: Results, case: CaseResult, console: Console) -> None:
    """Show one line a method: what was measured, and its targets. Colours: green for kept, red for missed."""
    found = lines(results, case)
    measured = [line for line in found if line.row.note is None]
    columns: list[tuple[str, Callable[[Line], str]]] = [
        ("method", lambda line: f"[bold]{escape(line.row.method)}[/]" if line.row.method == FROZEN else line.row.method)
    ]
    unit, name = (10**6, "MB") if case.input_bytes >= 10**6 else (10**3, "kB")
    wide = console.width >= WIDE
    if wide:
        columns.append(("numbers", lambda line: f"{line.row.trainable:,}"))
    if any(line.ms for line in measured):
        columns += [
            ("ms", lambda line: f"{line.ms.median:.3g}" if line.ms else ""),
            ("ratio", lambda line: f"{line.ratio.median:.2f}" if line.ratio else ""),
            ("p20–p80", lambda line: f"{line.ratio.p20:.2f}–{line.ratio.p80:.2f}" if line.ratio else ""),
        ]
    if any(line.saved is not None for line in measured):
        columns.append((f"saved\n{name}", lambda line: _bytes(line.saved, unit)))
    if any(line.peak is not None for line in measured):
        columns.append((f"peak\n{name}", lambda line: _bytes(line.peak, unit)))
    if any(line.verdicts for line in measured):
        columns.append(("target", _targets))
    if wide and any(line.row.algorithm for line in measured):
        columns.append(("algorithm", lambda line: line.row.algorithm or ""))

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, _ in columns:
        text = title in ("method", "target", "algorithm")
        table.add_column(title, justify="left" if text else "right", no_wrap=title != "target", vertical="top")
    for line in measured:
        table.add_row(*(cell(line) for _, cell in columns))
    console.print(f"\n[bold]{escape(case.name)}[/]  [dim]{case.dtype}[/]", highlight=False)
    print_table(console, table)
    _print_notes(case, console)


def _print_notes(case: CaseResult, console: Console) -> None:
    for row in case.rows:
        if row.note:
            text = f"{row.method}, {case.name}: {row.note}"
            console.print(f"[dim]{escape(text)}[/]", highlight=False)


def _bytes(count: int | None, unit: int) -> str:
    return "" if count is None else f"{count / unit:,.1f}"


def _targets(line: Line) -> str:
    shown = []
    for quantity, verdicts in line.verdicts.items():
        for verdict in verdicts:
            name = "" if quantity == "time" else f"{quantity} "
            colour, mark = ("green", "✓") if verdict.met else ("red", "✗")
            shown.append(f"[{colour}]{mark}[/]{name}≤{escape(verdict.bound)}")
    return " ".join(shown)
