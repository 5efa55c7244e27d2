"""Every method against a reference: differences in pairs of the same task and seed, tested and corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from structune.study.report.cells import Cell
from structune.study.report.score_text import number, one_unit
from structune.study.report.statistics import CONFIDENCE, Difference, holm, paired_difference
from structune.tasks.task import Metric

AHEAD, BEHIND, NO_DIFFERENCE, NOT_TESTED = "ahead", "behind", "no difference shown", "not tested"


class Compared(NamedTuple):
    """A method against the reference.

    Attributes:
        label: of the method.
        tasks: on which it was.
        metric: of them.
        gain: how much better its scores are, whatever their direction.
        p: corrected for the number of tests beside it; None where it was not tested.
    """

    label: str
    tasks: list[str]
    metric: Metric
    gain: Difference
    p: float | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.p is None:
            return NOT_TESTED
        return NO_DIFFERENCE if self.p >= 1 - CONFIDENCE else AHEAD if self.gain.mean > 0 else BEHIND

    def said(self) -> str:
        """The verdict with what it rests on."""
        if self.p is None:
            return f"{NOT_TESTED}: {self.gain.why_not}"
        return f"{self.verdict} (p {said_p(self.p)})"

    def shown(self) -> str:
        """The gain with its sign, in the units of tables."""
        return "–" if math.isnan(self.gain.mean) else number(self.gain.mean, self.metric, "+")


@dataclass(frozen=True)
class Against:
    """All comparisons with one reference.

    Attributes:
        reference: its label.
        each: one for each method and task.
        overall: one for each method, over all tasks that both were tested on with two seeds or more, if there are any;
            empty for a single task, and where `why_not_overall` says why.
    """

    reference: str
    each: list[Compared]
    overall: list[Compared]
    why_not_overall: str = ""

    def of(self, cell: Cell) -> Compared | None:
        """The comparison of that method on that task."""
        return next((one for one in self.each if (one.label, one.tasks) == (cell.label, [cell.task])), None)


def said_p(p: float) -> str:
    """A p-value to be read: `= 0.031`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"


def against(cells: Sequence[Cell], reference: str) -> Against:
    """Compare every method that has a test score with the reference on the same tasks and seeds.

    p-values are corrected by Holm: those of methods and tasks together, and those over all tasks together.
    """
    beaten = {cell.task: cell for cell in cells if cell.label == reference and cell.seeds}
    gains: dict[str, list[tuple[Cell, list[float]]]] = {}
    for cell in cells:
        if cell.seeds and cell.label != reference and cell.task in beaten:
            gains.setdefault(cell.label, []).append((cell, _gains(cell, beaten[cell.task])))
    each = [(label, [cell], [gain]) for label, found in gains.items() for cell, gain in found]
    metrics = {cell.task: cell.metric for cell in beaten.values()}
    alike = one_unit(metrics.values())
    why = ""
    if len(metrics) > 1 and not alike:
        why = "Tasks are scored in different units, so that there is no mean difference over them."
    overall = []
    for label, found in gains.items():
        several = [(cell, gain) for cell, gain in found if len(gain) > 1] or found
        overall.append((label, [cell for cell, _ in several], [gain for _, gain in several]))
    return Against(reference, _tested(each), _tested(overall) if len(metrics) > 1 and alike else [], why)


def _gains(cell: Cell, beaten: Cell) -> list[float]:
    """Of the seeds that both have, how much better the one is."""
    return [cell.sign * (score - beaten.seeds[seed]) for seed, score in cell.seeds.items() if seed in beaten.seeds]


def _tested(wanted: Sequence[tuple[str, list[Cell], list[list[float]]]]) -> list[Compared]:
    found = [(label, cells, paired_difference(groups)) for label, cells, groups in wanted]
    corrected = iter(holm([gain.p for _, _, gain in found if gain.p is not None]))
    return [
        Compared(
            label, [cell.task for cell in cells], cells[0].metric, gain, None if gain.p is None else next(corrected)
        )
        for label, cells, gain in found
    ]
