"""One method on one task, and what is done next with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape

from structune.methods.method import Method
from structune.study.results.files import Wanted
from structune.study.search.points import Point
from structune.study.search.sampled import Choice, Scores
from structune.study.workers.job_pool import Job


@dataclass
class Pair:
    """One method on one task: a rate is searched, then come the seeds.

    Attributes:
        results: of its runs by what was tried and seed, as far as they were looked for; None: none is there.
        tries: what was tried, or is to be, by its number: where tries are drawn.
        searched: what was found last, and from which scores.
    """

    task: str
    label: str
    method: Method
    results: dict[tuple[Point, int], dict[str, Any] | None] = field(default_factory=dict)
    tries: dict[int, Point] = field(default_factory=dict)
    searched: tuple[Scores, Choice] | None = None

    def wanted(self, point: Point, seed: int) -> Wanted:
        return Wanted(self.task, self.label, self.method, point, seed)


@dataclass(frozen=True)
class Step:
    """What one process is to do: a run, a test score, or both."""

    pair: Pair
    wanted: Wanted
    job: Job

    @property
    def name(self) -> str:
        return self.wanted.name

    def said(self) -> str:
        """For a person, to be printed."""
        tried = (word.replace("=", " ", 1) for word in self.wanted.point.words())
        what = (self.pair.task, self.pair.label, *tried, f"seed {self.wanted.seed}")
        return escape("  ".join(what))
