"""What one process does, and jobs side by side, wherever they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.run import Run
from structune.study.workers.own_process import Outcome

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        recipe: of the run, which is trained unless it is finished.
        test: the file that it is scored on then; None: it is not.
        timed: whether to take a few steps that are thrown away instead, and say what the run would take.
        overwrite: whether a run that is there is begun anew, also a finished one.
        quiet: whether it shows no progress.
    """

    recipe: ResolvedRecipe
    test: Path | None = None
    timed: bool = False
    overwrite: bool = False
    quiet: bool = True

    @property
    def run(self) -> Run:
        return Run(Path(self.recipe.output))


class JobPool(ABC):
    """Jobs side by side. A context manager, at whose end none is left.

    Signals are taken while it is open: at the first every run is asked to save and end.

    Attributes:
        signals: that came so far.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._busy: dict[str, Any] = {}
        self._stack = ExitStack()

    @abstractmethod
    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        self.stop()
        while self._busy:
            self.wait()
        self._stack.close()

    @property
    @abstractmethod
    def count(self) -> int:
        """How many jobs there is room for."""

    @property
    def free(self) -> int:
        """How many more jobs can be started."""
        return max(0, self.count - len(self._busy))

    @abstractmethod
    def start(self, key: str, job: Job) -> None:
        """Begin a job, which `wait` gives back under its key."""

    @abstractmethod
    def wait(self, seconds: float | None = None) -> list[tuple[str, Outcome]]:
        """The jobs that ended, with how they ended: at least one, unless `seconds` go by or none is there."""

    @abstractmethod
    def stop(self) -> None:
        """Ask every run to save and end."""
