"""How long a study takes, to judge by what was done of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from structune.duration import duration
from structune.finetune.run_folder.run import versions
from structune.study.pair import Pair, Step
from structune.study.runner import Left, Runner


@dataclass(frozen=True)
class Takes:
    """Seconds.

    Attributes:
        run: of a run: made ready, trained, scored on the validation part.
        test: of a score on the test part.
    """

    run: float
    test: float = 0.0

    def of(self, left: Left) -> float:
        """What is left of a pair whose runs take that."""
        return left.runs * self.run + left.tests * self.test


def finished_here(pair: Pair) -> Takes | None:
    """Mean seconds of a pair's runs that were finished on this machine; None: there are none.

    Results that do not say how long the whole of a run took say how long its training did.
    """
    found = [result for result in pair.results.values() if result is not None and "train_seconds" in result]
    found = [result for result in found if _here().items() <= result["versions"].items()]
    if not found:
        return None
    whole = [result["run_seconds"] for result in found if "run_seconds" in result]
    tests = [result["test_seconds"] for result in found if "test_seconds" in result]
    run = statistics.mean(whole or [result["train_seconds"] for result in found])
    return Takes(run, statistics.mean(tests) if tests else 0.0)


@cache
def _here() -> dict[str, str]:
    """What results say of this machine that decides how long a run takes; torch is imported to tell the GPU."""
    found = versions()
    return {key: found[key] for key in ("platform", "cpu", "gpu")}


class Times:
    """How long what is left takes: as steps of the same pair, else of the same task, else as all.

    Args:
        pairs: whose runs of earlier commands count, where there are no later ones of the pair.
    """

    def __init__(self, pairs: Sequence[Pair] = ()) -> None:
        self._known: list[tuple[Pair, float]] = []
        self._before = [(pair, takes) for pair in pairs if (takes := finished_here(pair)) is not None]

    def add(self, pair: Pair, seconds: float) -> None:
        self._known.append((pair, seconds))

    def of(self, left: Left) -> float | None:
        """Seconds that what is left of a pair takes; None: nothing is known."""
        for alike in (lambda one: one is left.pair, lambda one: one.task == left.pair.task, lambda one: True):
            if known := [seconds for one, seconds in self._known if alike(one)]:
                return left.steps * statistics.mean(known)
            if before := [takes.of(left) for one, takes in self._before if alike(one)]:
                return statistics.mean(before)
        return None

    def left(self, left: Sequence[Left], jobs: int) -> float | None:
        """Seconds that what is left takes, so many steps at a time; None: nothing is known."""
        if not self._known and not self._before:
            return None
        return sum(self.of(each) or 0.0 for each in left if each.steps) / jobs


class Clock:
    """A line a step, with the time that is left to judge by the steps so far."""

    def __init__(self, runner: Runner, jobs: int) -> None:
        self.runner, self.jobs = runner, jobs
        self.done = runner.done()
        self.times = Times(runner.pairs)

    def first_line(self) -> str:
        """What is done and left before the first step."""
        at_a_time = f", {self.jobs} at a time" if self.jobs > 1 else ""
        seconds = self.times.left(self.runner.left(), self.jobs)
        estimate = "" if seconds is None else f": about {duration(seconds)}"
        return f"{self.done} runs and test scores are done, about {self.left()} left{at_a_time}{estimate}"

    def left(self) -> int:
        """How many steps are left, at least."""
        return sum(each.steps for each in self.runner.left())

    def line(self, step: Step, seconds: float, said: str) -> str:
        self.done += 1
        self.times.add(step.pair, seconds)
        left = self.times.left(self.runner.left(), self.jobs)
        estimate = f"about {duration(left)} left" if left else "done"
        return f"{self.done}/{self.done + self.left()}  {step.said()}  {said}  {duration(seconds)}  [dim]{estimate}[/]"
