"""Runs in processes of their own, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from structune.doubt import DataWarning
from structune.finetune.importing import without_remarks
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.stopping.signals import taken
from structune.study.workers.job_pool import Job, JobPool
from structune.study.workers.own_process import Outcome, Timed, Took, end_with_parent, outcome_of, outcome_of_exit_code
from structune.study.workers.same_run import noted_of, refuse_other, wait_until_left

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_NO_CUDA_HERE = "no CUDA in a forked process"

_METHOD = "STRUCTUNE_START_METHOD"

_PRELOADED = "structune.study.workers.preloaded"


def carry_out(job: Job) -> Outcome:
    """Train, or go on from the last checkpoint, and score: in this process."""

    def timed() -> Outcome:
        with without_remarks():
            from structune.finetune.check import check

        begun = time.monotonic()
        found = check(job.recipe, overwrite=True)
        made_ready = time.monotonic() - begun - found.steps_taken * found.seconds_per_step
        seconds = max(0.0, made_ready) + found.seconds
        times = Timed(seconds, found.seconds_per_step, found.seconds_per_evaluation, found.eval_examples)
        return Outcome("finished", timed=times)

    def trained_and_scored() -> Outcome:
        with without_remarks():
            from structune.finetune.evaluate import evaluate
            from structune.finetune.training import train

        wait_until_left(job.run)
        took, begun = Took(), time.monotonic()
        state = "new" if job.overwrite else job.run.state()
        if state in ("finished", "unfinished"):
            refuse_other(job.run, job.recipe)
        if state != "finished":
            screen, resume = Console(quiet=job.quiet), state == "unfinished"
            noted = noted_of(job.recipe)
            train(job.recipe, resume=resume, overwrite=job.overwrite, console=screen, noted=noted)
            if not resume:
                took = Took(run=time.monotonic() - begun)
        if job.test is None:
            return Outcome("finished", took=took)
        begun = time.monotonic()
        scored = evaluate(job.run.folder, job.test)
        took = replace(took, test=time.monotonic() - begun)
        return Outcome("finished", test=scored.scores | {"loss": scored.loss, "examples": scored.examples}, took=took)

    try:
        return outcome_of(timed if job.timed else trained_and_scored)
    except Exception as error:  # noqa: BLE001  (one run's defect is no reason to lose the others)
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {error}")


def train_in_own_process(recipe: ResolvedRecipe, overwrite: bool, quiet: bool = False) -> Outcome:
    """`carry_out` in a process of its own, whose peak memory and time are its own and which takes nothing down with it.

    It shows its progress on this one's terminal, and ends as `Workers` say.
    """
    with Workers(1) as workers:
        workers.start("", Job(recipe, overwrite=overwrite, quiet=quiet))
        ((_, outcome),) = workers.wait()
    if not workers.signals:
        return outcome
    if outcome.kind in ("finished", "diverged"):
        outcome = Outcome("interrupted")  # the signal came when there was nothing left to stop but the next run
    return replace(outcome, number=workers.signals[0])


class Workers(JobPool):
    """At most `count` processes, each with one job. A context manager, at whose end none is left.

    A process is a child of a fork server, which has imported everything and touched no device: on Linux it costs little
    more than its steps. It is deaf to Ctrl-C: signals come to this process, which passes on a SIGTERM, so that every
    run saves a checkpoint and ends. At a second Ctrl-C they are killed. When this process is killed, they save and end.

    Args:
        count: how many at a time; each has its part of the cores, unless OMP_NUM_THREADS says otherwise.
    """

    _busy: dict[str, tuple[Job, BaseProcess, Connection]]

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self.threads = None
        if count > 1 and not os.environ.get("OMP_NUM_THREADS"):
            self.threads = max(1, cores() // count)
        self._method = os.environ.get(_METHOD) or ("forkserver" if sys.platform == "linux" else "spawn")

    def __enter__(self) -> Self:
        self._stack.enter_context(taken(self._on_signal))
        return self

    @property
    def count(self) -> int:
        return self._count

    def start(self, key: str, job: Job) -> None:
        context: Any = multiprocessing.get_context(self._method)
        if self._method == "forkserver":
            context.set_forkserver_preload([_PRELOADED])
        receiver, sender = context.Pipe(duplex=False)
        screen = _screen() if self._method == "forkserver" else None
        process = context.Process(target=_work, args=(sender, job, self.threads, screen), daemon=True)
        with _deaf_to_interrupts(), _number_of_threads(self.threads):
            process.start()
        for end in (sender, *(screen or ())):
            end.close()
        self._busy[key] = (job, process, receiver)
        if self.signals:  # it came while that one was being started
            process.terminate()

    def wait(self, seconds: float | None = None) -> list[tuple[str, Outcome]]:
        until = None if seconds is None else time.monotonic() + seconds
        while self._busy:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready = connection.wait([process.sentinel for _, process, _ in self._busy.values()], left)
            ended = self._taken(ready)
            if ended or not ready:  # else what ended was begun again
                return ended
        return []

    def _taken(self, ready: Sequence[object]) -> list[tuple[str, Outcome]]:
        """The jobs of processes that ended, but for those that are begun again."""
        ended = []
        for key, (job, process, receiver) in list(self._busy.items()):
            if process.sentinel not in ready:
                continue
            process.join()
            del self._busy[key]
            try:
                outcome: Outcome = receiver.recv()
            except (EOFError, OSError):
                outcome = outcome_of_exit_code(process.exitcode or 0)
            receiver.close()
            if outcome.reason == _NO_CUDA_HERE:
                self._method = "spawn"  # something that was imported has touched the device
                self.start(key, job)
                continue
            if self.signals and outcome.kind == "failed":
                outcome = Outcome("interrupted")  # whatever a signal breaks off
            if self.signals and outcome.kind == "interrupted":
                outcome = replace(outcome, number=self.signals[0])
            ended.append((key, outcome))
        return ended

    def stop(self) -> None:
        for _, process, _ in self._busy.values():
            process.terminate()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        if self.signals.count(signal.SIGINT) > 1:
            for _, process, _ in list(self._busy.values()):
                process.kill()
        else:
            self.stop()


def _screen() -> list[Connection]:
    """Where output and errors go now: a fork server has those of the time at which it began."""
    return [Connection(os.dup(number), readable=False) for number in (1, 2)]


def _work(sender: Connection, job: Job, threads: int | None, screen: list[Connection] | None) -> None:
    """What a process does; `screen` is there if it was forked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, end in enumerate(screen or (), start=1):
        os.dup2(end.fileno(), number)
        end.close()
    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other
    warnings.filterwarnings("ignore", category=DataWarning)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    outcome = carry_out(job) if screen is None or _has_cuda_if_there_is(job) else Outcome("failed", _NO_CUDA_HERE)
    with suppress(BrokenPipeError):  # the parent was killed
        sender.send(outcome)


def _has_cuda_if_there_is(job: Job) -> bool:
    """Whether this process can use the GPU that it would: not where the process that it was forked from did."""
    import torch

    touched = _driver_is_loaded()
    if job.recipe.train.device == "cpu":
        return True
    if not torch.cuda.is_available():
        return not touched  # nobody sees a GPU in a process that was forked from one that has begun to use it
    try:
        torch.cuda.init()
    except RuntimeError:
        return False
    return True


def _driver_is_loaded() -> bool:
    """Whether this process, or the one that it was forked from, has loaded the driver of a GPU."""
    maps = Path("/proc/self/maps")
    return maps.is_file() and "libcuda.so" in maps.read_text(encoding="utf-8", errors="replace")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started inside do not hear Ctrl-C, and this one hears afterwards what came meanwhile.

    A fork server takes seconds to start, so that a Ctrl-C must not be lost: it is blocked, which processes inherit, and
    not ignored.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _number_of_threads(count: int | None) -> Iterator[None]:
    """Libraries of processes that are started inside read how many threads they may have."""
    if count is None:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
