"""What a machine of a Ray cluster does: one run, in a process of its own, on inputs that are checked."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from structune import __version__
from structune.errors import UserError
from structune.finetune.run_folder.run import Run
from structune.study.inputs.inventory import Input, inputs, moved
from structune.study.results.measured import measured
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome, outcome_of
from structune.study.workers.processes import Workers

MARK = "shared.txt"
"""A file in the study's work folder by whose content another machine sees that the disk is one."""


@dataclass(frozen=True)
class Errand:
    """A job with what another machine wants to know.

    Attributes:
        job: what is to be done.
        inputs: what the run reads.
        work: the study's work folder, absolute.
        folder: in which the study was started: outputs are named from there.
        mark: what `MARK` in the work folder says.
        version: of this package.
    """

    job: Job
    inputs: tuple[Input, ...]
    work: str
    folder: str
    mark: str
    version: str

    @classmethod
    def of(cls, job: Job, work: Path) -> Errand:
        """Made where the study is, in whose work folder there is a mark."""
        if job.test is not None:
            job = replace(job, test=job.test.absolute())  # nobody else knows from where it is named
        mark = (work / MARK).read_text(encoding="utf-8")
        reads = tuple(inputs(job.recipe, job.test))
        return cls(job, reads, str(work.absolute()), str(Path.cwd()), mark, __version__)


@dataclass(frozen=True)
class Answer:
    """What came of an errand.

    Attributes:
        outcome: of the run; None: these inputs are wanted first.
        missing: inputs that are not on that machine.
        machine: its name.
        node: its name in the cluster.
    """

    outcome: Outcome | None
    missing: tuple[Input, ...] = ()
    machine: str = ""
    node: str = ""


def run_errand(errand: Errand, content_of: Callable[[Input], bytes | None], node: str) -> Answer:
    """Do it, with the study's own folders where the disk is shared, else in a folder of temporary files.

    Args:
        errand: what is to be done.
        content_of: an input that was sent, packed; None: it was not.
        node: this machine's name in the cluster.
    """
    machine = socket.gethostname()

    def failed(reason: str) -> Answer:
        return Answer(Outcome("failed", f"on {machine}: {reason}"), (), machine, node)

    if errand.version != __version__:
        return failed(f"structune {__version__} is installed there and {errand.version} here; install the same")
    if _is_shared(errand):
        if Path(errand.folder).is_dir():
            os.chdir(errand.folder)
        elif not Path(errand.job.recipe.output).is_absolute():
            return failed(f"{errand.folder}: is not there, from where outputs are named; give an absolute --work")
        if other := [each.path for each in errand.inputs if not each.is_at(Path(each.path))]:
            return failed(f"{other[0]}: is not there, or is another; the work folder is shared, so share this as well")
        outcome = _in_own_process(errand.job)
        return Answer(outcome if outcome.kind != "finished" else _with_measures(outcome, errand.job), (), machine, node)
    scratch = Path(tempfile.gettempdir()) / f"structune-{errand.mark}"
    places, missing = {}, []
    try:
        for each in errand.inputs:
            own = Path(each.path)
            if each.is_at(own):
                places[each.path] = str(own)
            elif each.place(scratch).exists():
                places[each.path] = str(each.place(scratch))
            elif (content := content_of(each)) is not None:
                places[each.path] = str(each.unpack(content, scratch))
            else:
                missing.append(each)
    except (OSError, UserError) as error:
        return failed(str(error))
    if missing:
        return Answer(None, tuple(missing), machine, node)
    job, output = errand.job, Path(errand.job.recipe.output)
    there = Job(
        moved(job.recipe, scratch.joinpath("runs", *output.parts[-2:]), lambda path: places.get(path, path)),
        None if job.test is None else Path(places[str(job.test)]),
    )
    outcome = _in_own_process(there)
    if outcome.kind == "finished":
        outcome = _with_measures(outcome, there)
        there.run.remove_checkpoints()
        if there.test is not None:
            Run(there.run.folder).remove()  # its scores go home, and nobody asks for it here again
    return Answer(outcome, (), machine, node)


def _is_shared(errand: Errand) -> bool:
    try:
        return (Path(errand.work) / MARK).read_text(encoding="utf-8") == errand.mark
    except OSError:
        return False


def _with_measures(outcome: Outcome, job: Job) -> Outcome:
    return replace(outcome, measured=measured(job.recipe, job.run))


class _OneStop(Workers):
    """Ray asks for the end again and again until it comes; a run is asked once, and saves."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        if len(self.signals) == 1:
            self.stop()


def _in_own_process(job: Job) -> Outcome:
    ended: list[tuple[str, Outcome]] = []

    def waited_for() -> Outcome:
        with _OneStop(1) as workers:
            workers.start("run", job)
            while not ended:
                ended.extend(workers.wait(0.2))
        return ended[0][1]

    return outcome_of(waited_for)


def remote(ray: Any, cpus: float, gpus: float) -> Any:
    """`run_errand` as a task of Ray, tried again where its machine or its process is lost."""

    def errand_of_ray(errand: Errand, sent: dict[str, list[Any]]) -> Answer:
        def content_of(each: Input) -> bytes | None:
            return ray.get(sent[each.key][0]) if each.key in sent else None

        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the run's own process: Ray lets such a task see all there are
        return run_errand(errand, content_of, ray.get_runtime_context().get_node_id())

    # A process that has seen one GPU does not change to another: then each task has a fresh one.
    return ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2, max_calls=1 if gpus else 0)(errand_of_ray)
