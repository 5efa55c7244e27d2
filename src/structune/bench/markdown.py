"""Results as Markdown tables, for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structune.bench.growth import curves, exponent, is_growth, theory
from structune.bench.lines import Line, Spread, lines
from structune.bench.machine import in_words
from structune.bench.method import FROZEN
from structune.bench.results import Results
from structune.finetune.markdown import markdown_table


def to_markdown(results: Results, picture: str) -> str:
    """One suite on one machine: what it ran on, the table, notes, the figure.

    Args:
        results: of the suite.
        picture: the figure's path from the page.
    """
    if is_growth(results):
        table = _growth_table(results)
    elif "time" in results.suite["measure"]:
        table = _time_table(results)
    else:
        table = _memory_table(results)
    parts = [_where(results), table, *_notes(results), f"![{results.suite['title']}]({picture})"]
    return "\n\n".join(parts)


def _where(results: Results) -> str:
    settings, versions = results.suite, results.versions
    at = ""
    if results.commit:
        at = f", commit {results.commit['id'][:10]}{' with changes' if results.commit['dirty'] else ''}"
    dtypes = " and ".join(dict.fromkeys(case.dtype for case in results.cases))
    return (
        f"{in_words(results.machine)}, {dtypes}, {settings['rounds']} rounds, {results.date[:10]}; "
        f"torch {versions['torch']}, peft {versions['peft']}, structune {versions['structune']}{at}."
    )


def _time_table(results: Results) -> str:
    header = ["method", *(case.name for case in results.cases)]
    cells = [[_time_cell(line) for line in lines(results, case)] for case in results.cases]
    return _table(header, results, cells)


def _time_cell(line: Line) -> str:
    if line.ratio is None:
        return "–"
    if line.row.method == FROZEN and line.ms:
        return f"1 = {line.ms.median:.3g} ms"
    return _join(f"{line.ratio.median:.2f} ({_range(line.ratio)})", line, "time")


def _memory_table(results: Results) -> str:
    header, cells = ["method"], []
    for case in results.cases:
        header += [f"{case.name}: saved MB", "peak MB"]
        found = lines(results, case)
        for quantity in ("saved", "peak"):
            cells.append([_join(_megabytes(getattr(line, quantity)), line, quantity) for line in found])
    return _table(header, results, cells)


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


def _table(header: Sequence[str], results: Results, columns: Sequence[Sequence[str]]) -> str:
    methods = [row.method for row in results.cases[0].rows]
    return markdown_table(header, list(zip(methods, *columns, strict=True)))


def _join(value: str, line: Line, quantity: str) -> str:
    marks = [f"{'✓' if v.met else '✗'} ≤ {v.bound}" for v in line.verdicts.get(quantity, [])]
    return " ".join([value, *([", ".join(marks)] if marks and value != "–" else [])])


def _range(spread: Spread) -> str:
    return f"{spread.p20:.2f}–{spread.p80:.2f}"


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.1f}"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}"
