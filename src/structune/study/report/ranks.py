"""Mean ranks of methods over tasks, and how far apart they have to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from structune.study.report.against import said_p
from structune.study.report.cells import Cell
from structune.study.report.statistics import CONFIDENCE, alike, critical_difference, friedman, mean_ranks


@dataclass(frozen=True)
class Ranks:
    """Methods that were scored on every task, from the best mean rank on.

    Attributes:
        labels, ranks: of them.
        tasks: on which they are ranked.
        left_out: methods without a score on some task.
        difference: by how much ranks have to differ; nan where none was worked out.
        groups: first and last of those that are not told apart; empty where none was worked out.
        said: what it comes to, or why nothing can be said.
    """

    labels: list[str]
    ranks: list[float]
    tasks: list[str]
    left_out: list[str]
    difference: float
    groups: list[tuple[int, int]]
    said: str

    @property
    def drawn(self) -> bool:
        """Whether there is a critical difference to draw."""
        return not math.isnan(self.difference)


def ranked(cells: Sequence[Cell]) -> Ranks:
    """Rank the methods by mean test scores, tasks being blocks; seeds are no blocks of their own."""
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    labels = list(dict.fromkeys(cell.label for cell in cells))
    scores = {(cell.task, cell.label): cell.upwards for cell in cells if cell.seeds}
    whole = [label for label in labels if all((task, label) in scores for task in tasks)]
    left_out = [label for label in labels if label not in whole and any((task, label) in scores for task in tasks)]
    rows = [[scores[task, label] for label in whole] for task in tasks]
    ranks = mean_ranks(rows) if whole else []
    order = sorted(range(len(whole)), key=lambda number: (ranks[number], number))
    labels, ranks = [whole[number] for number in order], [ranks[number] for number in order]

    def found(said: str, difference: float = math.nan, groups: Sequence[tuple[int, int]] = ()) -> Ranks:
        return Ranks(labels, ranks, tasks, left_out, difference, list(groups), said)

    if len(whole) < 3:
        count = {0: "no method has", 1: "one method has", 2: "two methods have"}[len(whole)]
        return found(f"Nothing to test: {count} a test score on every task, and it takes three.")
    if len(tasks) < 2:
        return found("One task is no sample of tasks: the order on it is that of the table above.")
    difference = critical_difference(len(whole), len(tasks))
    if difference >= len(whole) - 1:
        return found(
            f"Too few tasks: by Nemenyi's test mean ranks of {len(whole)} methods on {len(tasks)} tasks would have to "
            f"differ by {difference:.1f}, and they cannot differ by more than {len(whole) - 1}. No difference between "
            f"methods can be shown by ranks, and no diagram is drawn."
        )
    p = friedman(rows)
    if math.isnan(p) or p >= 1 - CONFIDENCE:
        said = "all are equal" if math.isnan(p) else f"p {said_p(p)}"
        return found(f"No difference shown: by Friedman's test the methods may all be alike ({said}).", difference,
                     [(0, len(whole) - 1)])  # fmt: skip
    groups = alike(ranks, difference)
    return found(
        f"By Friedman's test the methods are not all alike (p {said_p(p)}); those whose mean ranks differ by less than "
        f"{difference:.2f} (Nemenyi) are joined by a bar: between them no difference is shown.", difference, groups,
    )  # fmt: skip
