"""Mean ranks of methods over tasks, and how far apart they have to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from structune.study.report.against import said_p
from structune.study.report.cells import Cell
from structune.study.report.statistics import CONFIDENCE, alike, critical_difference, friedman, mean_ranks


@dataclass(frozen=True)
class Ranks:
    """Methods that were scored on the same tasks, from the best mean rank on.

    Attributes:
        labels, ranks: of them.
        tasks: on which they are ranked.
        left_out: methods without a score on some of these tasks, and other tasks.
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
    """Rank the methods by mean test scores, tasks being blocks; seeds are no blocks of their own.

    Where some scores are missing, methods and tasks are taken that have as many scores as can be without a gap.
    """
    scores = {(cell.task, cell.label): cell.upwards for cell in cells if cell.seeds}
    tasks, whole = _without_gaps(scores)
    left_out = [label for label in dict.fromkeys(label for _, label in scores) if label not in whole]
    left_out += [task for task in dict.fromkeys(task for task, _ in scores) if task not in tasks]
    rows = [[scores[task, label] for label in whole] for task in tasks]
    ranks = mean_ranks(rows) if whole else []
    order = sorted(range(len(whole)), key=lambda number: (ranks[number], number))
    labels, ranks = [whole[number] for number in order], [ranks[number] for number in order]

    def found(said: str, difference: float = math.nan, groups: Sequence[tuple[int, int]] = ()) -> Ranks:
        return Ranks(labels, ranks, tasks, left_out, difference, list(groups), said)

    if len(whole) < 3:
        some = ("no method has a test score", "one method has one", "two methods have test scores on the same tasks")
        return found(f"Nothing to test: {some[len(whole)]}, and it takes three.")
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


def _without_gaps(scores: Mapping[tuple[str, str], float]) -> tuple[list[str], list[str]]:
    """Tasks that one or two methods have scores on, and all methods that have them on each: those of most scores.

    Three methods and two tasks, which can be tested, come before fewer; of equals those of more tasks.
    """
    tasks_of: dict[str, list[str]] = {}
    for task, label in scores:
        tasks_of.setdefault(label, []).append(task)

    def methods_on(tasks: Sequence[str]) -> list[str]:
        return [label for label, known in tasks_of.items() if tasks and set(tasks) <= set(known)]

    def worth(tasks: Sequence[str]) -> tuple[bool, int, int]:
        methods = len(methods_on(tasks))
        return methods >= 3 and len(tasks) >= 2, len(tasks) * methods, len(tasks)

    common = ([task for task in one if task in other] for one in tasks_of.values() for other in tasks_of.values())
    tasks = max(common, key=worth, default=[])
    return tasks, methods_on(tasks)
