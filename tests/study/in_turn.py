"""Jobs in this process, one after the other, where tests want no processes."""

from __future__ import annotations

from structune.study.workers import processes as workers
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome


class InTurn:
    """Stands for `Workers`: a job is done when it is started."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.signals: list[int] = []
        self._ended: list[tuple[str, Outcome]] = []

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def free(self) -> int:
        return 1 - len(self._ended)

    def start(self, key: str, job: Job) -> None:
        self._ended.append((key, workers.carry_out(job)))

    def wait(self, seconds: float | None = None) -> list[tuple[str, Outcome]]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass
