"""What it costs a method to be trained at one learning rate on every task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from structune.study.report.cells import Cell, by_label
from structune.study.report.score_text import factor, one_unit


class AtRate(NamedTuple):
    """A method at one rate, on all tasks on which its rate was searched.

    Attributes:
        label: of the method.
        rate: at which it was tried on each of these tasks.
        tasks: how many there are.
        mean: over tasks, by how much the validation score is below that of the best rate tried there, in the units of
            tables; infinite where numbers ran away on one of them.
        most: the largest of these differences.
        where: the task of that.
    """

    label: str
    rate: float
    tasks: int
    mean: float
    most: float
    where: str


def cost(value: float) -> str:
    """Two digits of it."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def at_rates(cells: Sequence[Cell]) -> list[AtRate]:
    """Every method whose search is over, at every rate at which it was tried on all tasks, in the order of the cells.

    Empty where tasks are scored in different units. Left out are searches whose tries are drawn, as more than the rate
    may differ between these, and those in which all scores are the same: also where there is one, or none.
    """
    own = [cell for cell in cells if cell.best is not None and not cell.drawn and _differ(cell)]
    if not one_unit(cell.metric for cell in own):
        return []
    return [one for group in by_label(own).values() for one in _of(group)]


def _differ(cell: Cell) -> bool:
    """Whether not all its scores are the same."""
    return len({one.score for one in cell.tries if one.score is not None}) > 1


def _of(cells: Sequence[Cell]) -> Iterator[AtRate]:
    below = {cell.task: _below_best(cell) for cell in cells}
    for rate in sorted(set.intersection(*(set(found) for found in below.values()))):
        costs = {task: found[rate] for task, found in below.items()}
        where = max(costs, key=costs.__getitem__)
        yield AtRate(cells[0].label, rate, len(costs), statistics.fmean(costs.values()), costs[where], where)


def _below_best(cell: Cell) -> dict[float, float]:
    """By rate, to the three digits of its name, how far its score is from the best one's."""
    scores = {float(f"{one.point.rate:.3g}"): one.score for one in cell.tries}
    times = factor(cell.metric) * cell.sign
    fine = {rate: times * score for rate, score in scores.items() if score is not None}
    return {rate: max(fine.values()) - fine[rate] if rate in fine else math.inf for rate in scores}


def common_rate(found: Sequence[AtRate]) -> list[AtRate]:
    """All methods at the rate that ruins and costs least of those at which half of the methods or more were tried.

    Where no rate is, at one of those at which most were tried.
    """
    by_rate: dict[float, list[AtRate]] = {}
    for one in found:
        by_rate.setdefault(one.rate, []).append(one)
    enough = min(math.ceil(len({one.label for one in found}) / 2), max(map(len, by_rate.values()), default=0))

    def order(own: list[AtRate]) -> tuple[int, float]:
        fine = [one.mean for one in own if not math.isinf(one.mean)]
        return len(own) - len(fine), statistics.fmean(fine or [math.inf])

    return min((own for own in by_rate.values() if len(own) >= enough), key=order, default=[])
