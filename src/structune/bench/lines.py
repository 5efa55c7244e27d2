"""Figures of merit: what a table or a figure shows of a measured row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from structune.bench.method import FROZEN
from structune.bench.results import CaseResult, Results, Row
from structune.bench.suite import Target

SLACK = 0.01
"""Of the inputs' bytes, which what a method keeps beside them may have: kernels made of its numbers."""


@dataclass(frozen=True)
class Spread:
    """Median, 20th and 80th percentile."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; percentiles interpolate linearly."""
        p20, median, p80 = np.percentile(values, [20, 50, 80])
        return cls(float(median), float(p20), float(p80))


@dataclass(frozen=True)
class Verdict:
    """A bound, as text, and whether it was kept; ratios are compared with two digits, as they are shown."""

    bound: str
    met: bool


@dataclass(frozen=True)
class Line:
    """One method in one case.

    Attributes:
        row: as measured.
        ms: milliseconds a call.
        ratio: to the frozen layer's call in the same round.
        extra_ms: median over the rounds of the milliseconds beyond the frozen layer's.
        saved: bytes kept for backward beyond the frozen layer's.
        peak: transient bytes beyond the frozen layer's.
        verdicts: by quantity (time, saved, peak), the bounds that are aimed at.
    """

    row: Row
    ms: Spread | None
    ratio: Spread | None
    extra_ms: float | None
    saved: int | None
    peak: int | None
    verdicts: dict[str, list[Verdict]]


def lines(results: Results, case: CaseResult) -> list[Line]:
    """The rows of one case, worked out."""
    targets = [Target.model_validate(content) for content in results.suite["targets"]]
    return [_line(row, case, targets, results.device) for row in case.rows]


def ratios(row: Row, reference: Row) -> list[float]:
    """Of a row's times to another's, round by round."""
    return [one / other for one, other in zip(row.ms or [], reference.ms or [], strict=True)]


def _line(row: Row, case: CaseResult, targets: Sequence[Target], device: str) -> Line:
    frozen = case.row(FROZEN)
    assert frozen is not None
    timed = row.ms is not None and frozen.ms is not None
    line = Line(
        row=row,
        ms=Spread.of(row.ms) if row.ms else None,
        ratio=Spread.of(ratios(row, frozen)) if timed else None,
        extra_ms=float(np.median(np.subtract(row.ms or [], frozen.ms or []))) if timed else None,
        saved=None if row.saved is None or frozen.saved is None else row.saved - frozen.saved,
        peak=None if row.peak is None or frozen.peak is None else row.peak - frozen.peak,
        verdicts={},
    )
    for target in targets:
        if target.applies(row.method, case.name, device):
            for quantity, verdict in _verdicts(line, target, case):
                line.verdicts.setdefault(quantity, []).append(verdict)
    return line


def _verdicts(line: Line, target: Target, case: CaseResult) -> list[tuple[str, Verdict]]:
    found = []
    for bound in target.time:
        if isinstance(bound, str):
            other = case.row(bound)
            if line.row.ms and other is not None and other.ms:
                found.append(("time", Verdict(bound, round(Spread.of(ratios(line.row, other)).median, 2) <= 1)))
        elif line.ratio is not None:
            found.append(("time", Verdict(f"{bound:.2f}", round(line.ratio.median, 2) <= bound)))
    if target.saved and line.saved is not None:
        limit = SLACK * case.input_bytes + (case.input_bytes if target.saved == "input" else 0)
        found.append(("saved", Verdict("x" if target.saved == "input" else "0", line.saved <= limit)))
    if target.peak and line.peak is not None:
        found.append(("peak", Verdict("W", line.peak <= case.weight_bytes)))
    return found
