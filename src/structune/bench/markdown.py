"""Results as Markdown tables, for docs/benchmarks.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from structune.bench.growth import curves, exponent, is_growth, theory
from structune.bench.lines import Line, lines
from structune.bench.machine import in_words
from structune.bench.method import FROZEN
from structune.bench.results import Results
from structune.finetune.markdown import markdown_table

MOST = 6
"""Columns of numbers in a table."""


def to_markdown(results: Results, picture: str) -> str:
    """One suite on one machine: the figure, what it ran on, and the tables, folded where they are long.

    Args:
        results: of the suite.
        picture: the figure's path from the page.
    """
    if is_growth(results):
        tables = [_growth_table(results)]
    elif "time" in results.suite["measure"]:
        tables = _time_tables(results)
    else:
        tables = _memory_tables(results)
    figure = f"[![{results.suite['title']}]({picture})]({picture})"  # a click shows it in full size
    parts = [figure, _where(results), *tables, *_notes(results)]
    return "\n\n".join(parts)


def _where(results: Results) -> str:
    settings, versions = results.suite, results.versions
    at = ""
    if results.commit:
        at = f", commit {results.commit['id'][:10]}{' with changes' if results.commit['dirty'] else ''}"
    dtypes = " and ".join(dict.fromkeys(case.dtype for case in results.cases))
    return (
        f"{in_words(results.machine)}, {dtypes}, {settings['rounds']} rounds, {results.date[:10]};\n"
        f"torch {versions['torch']}, peft {versions['peft']}, structune {versions['structune']}{at}."
    )


def _time_tables(results: Results) -> list[str]:
    def median(line: Line) -> str:
        if line.ratio is None:
            return "–"
        if line.row.method == FROZEN and line.ms:
            return f"{line.ms.median:.3g} ms"
        return f"{line.ratio.median:.2f}{_mark(line, 'time')}"

    def spread(line: Line) -> str:
        return "–" if line.ratio is None else f"{line.ratio.p20:.2f}–{line.ratio.p80:.2f}"

    return [
        _folded(f"Medians, the frozen layer = 1{_one_target(results, 'time')}", _by_case(results, median)),
        _folded("Spread, from the 20th to the 80th percentile", _by_case(results, spread)),
        *_targets(results, "time"),
    ]


def _memory_tables(results: Results) -> list[str]:
    tables = []
    for quantity, heading in {"saved": "Saved for backward, MB", "peak": "Peak, MB"}.items():

        def megabytes(line: Line, quantity: str = quantity) -> str:
            count = getattr(line, quantity)
            return "–" if count is None else f"{count / 1e6:,.1f}{_mark(line, quantity)}"

        tables.append(_folded(f"{heading}{_one_target(results, quantity)}", _by_case(results, megabytes)))
        tables += _targets(results, quantity)
    return tables


def _bounds(results: Results, quantity: str) -> set[str]:
    verdicts = (line.verdicts.get(quantity, ()) for case in results.cases for line in lines(results, case))
    return {verdict.bound for some in verdicts for verdict in some}


def _one_target(results: Results, quantity: str) -> str:
    """For a heading: what the marks are about, where it is the same for all."""
    bounds = _bounds(results, quantity)
    return f"; target ≤ {bounds.pop()}" if len(bounds) == 1 else ""


def _targets(results: Results, quantity: str) -> list[str]:
    """What the marks are about, where it differs: each bound of each method that has some, kept or missed."""

    def told(line: Line) -> str:
        return ", ".join(f"{_sign(verdict.met)} ≤ {verdict.bound}" for verdict in line.verdicts.get(quantity, []))

    if len(_bounds(results, quantity)) < 2:
        return []
    return [_folded("Targets", _by_case(results, told, empty_too=False))]


def _by_case(
    results: Results,
    cell: Callable[[Line], str],
    empty_too: bool = True,
) -> list[str]:
    """A row a method and a column a case, in as many tables as keep each narrow.

    `empty_too`: methods with nothing in any cell are shown as well.
    """
    columns = [[cell(line) for line in lines(results, case)] for case in results.cases]
    rows = [
        (row.method, cells)
        for row, cells in zip(results.cases[0].rows, zip(*columns, strict=True), strict=True)
        if empty_too or any(cells)
    ]
    count = math.ceil(len(columns) / MOST)
    edges = [round(len(columns) * number / count) for number in range(count + 1)]
    return [
        markdown_table(
            ["method", *(case.name for case in results.cases[start:end])],
            [[method, *cells[start:end]] for method, cells in rows],
        )
        for start, end in pairwise(edges)
    ]


def _folded(summary: str, tables: Sequence[str]) -> str:
    """What opens with a click, on the site and on GitHub."""
    inside = "\n\n".join(tables)
    return f'<details markdown="1"><summary>{summary}</summary>\n\n{inside}\n\n</details>'


def _mark(line: Line, quantity: str) -> str:
    """Whether all targets are kept; nothing where there are none."""
    verdicts = line.verdicts.get(quantity, [])
    return f" {_sign(all(verdict.met for verdict in verdicts))}" if verdicts else ""


def _sign(met: bool) -> str:
    return "✓" if met else "✗"


def growth_cells(results: Results) -> list[list[str]]:
    """The table of fitted exponents: a header, then a line a method."""
    by_width = {curve.method: curve for curve in curves(results, "width")}
    by_tokens = {curve.method: curve for curve in curves(results, "tokens")}
    cells = [["method", "d: whole", "d: beyond frozen", "d: theory", "tokens: whole", "tokens: beyond frozen"]]
    for method in {**by_width, **by_tokens}:
        row = [method]
        for curve in (by_width.get(method), by_tokens.get(method)):
            row.append(_number(curve and exponent(curve.sizes, curve.ms)))
            row.append("–" if method == FROZEN else _number(curve and exponent(curve.sizes, curve.extra_ms)))
        curve = by_width.get(method)
        row.insert(3, _number(curve and theory(curve.kind, curve.sizes)))
        cells.append(row)
    return cells


def _growth_table(results: Results) -> str:
    header, *rows = growth_cells(results)
    return markdown_table(header, rows)


def _notes(results: Results) -> list[str]:
    """Why methods are left out, each reason once, with the cases it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in results.cases:
        for row in case.rows:
            if row.note:
                reasons.setdefault((row.method, row.note), []).append(case.name)
    notes = [f"- {method} ({'; '.join(names)}): {note}" for (method, note), names in reasons.items()]
    return ["\n".join(notes)] if notes else []


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}"
