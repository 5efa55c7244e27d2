"""How long a study takes, to judge by what was done of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from structune.duration import duration
from structune.study.cell import Cell, Step
from structune.study.runner import Left, Runner


class Times:
    """How long steps take: as those of the same cell, else of the same task, else as all."""

    def __init__(self) -> None:
        self._known: list[tuple[Cell, float]] = []

    def add(self, cell: Cell, seconds: float) -> None:
        self._known.append((cell, seconds))

    def of(self, cell: Cell) -> float | None:
        """Seconds of one step; None: nothing is known."""
        for alike in (lambda one: one is cell, lambda one: one.task == cell.task, lambda one: True):
            if known := [seconds for one, seconds in self._known if alike(one)]:
                return statistics.mean(known)
        return None

    def left(self, left: Sequence[Left], jobs: int) -> float | None:
        """Seconds that what is left takes, so many steps at a time; None: nothing is known."""
        if not self._known:
            return None
        return sum(each.steps * (self.of(each.cell) or 0.0) for each in left if each.steps) / jobs


class Clock:
    """A line a step, with the time that is left to judge by the steps so far."""

    def __init__(self, runner: Runner, jobs: int) -> None:
        self.runner, self.jobs = runner, jobs
        self.done = runner.done()
        self.times = Times()

    def left(self) -> int:
        """How many steps are left, at least."""
        return sum(each.steps for each in self.runner.left())

    def line(self, step: Step, seconds: float, said: str) -> str:
        self.done += 1
        self.times.add(step.cell, seconds)
        left = self.times.left(self.runner.left(), self.jobs)
        estimate = f"about {duration(left)} left" if left else "done"
        return f"{self.done}/{self.done + self.left()}  {step.said()}  {said}  {duration(seconds)}  [dim]{estimate}[/]"
