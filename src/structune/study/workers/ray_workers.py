"""Runs on the machines of a Ray cluster, which says what runs where."""

from __future__ import annotations

import os
import signal
import time
import uuid
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from structune.doubt import say
from structune.errors import UserError
from structune.files import write_text
from structune.finetune.stopping.signals import stop_signals, taken
from structune.study.inputs.inventory import Input
from structune.study.workers.job_pool import Job, JobPool
from structune.study.workers.own_process import Outcome
from structune.study.workers.processes import cores
from structune.study.workers.ray_task import MARK, Answer, Errand, remote

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, which ends with the study."""

_STORE = 2**27
"""Bytes of shared memory for what passes between processes of that one: nothing is sent there."""


class RayWorkers(JobPool):
    """As many jobs at a time as the cluster has room for.

    A machine that shares the disk uses the study's own folders; to any other, what a run reads is sent once. A run that
    was lost with its machine is begun again by Ray, twice at most; where the disk is shared it goes on from its
    checkpoint. A test score is asked of the machine that has the run, if it is still there.

    Args:
        address: of the cluster, `auto` for the one that this machine belongs to, or `LOCAL`.
        work: the study's work folder.
        at_most: jobs at a time; None: whatever there is room for.
        gpus: of a run; a share of one lets several runs have it.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it has no room for a run.
    """

    _busy: dict[str, tuple[Job, Any]]

    def __init__(self, address: str, work: Path, at_most: int | None = None, gpus: float = 0.0) -> None:
        super().__init__()
        self.address, self.work, self.at_most, self.gpus = address, work.absolute(), at_most, gpus
        self.cpus = float(os.environ.get("OMP_NUM_THREADS") or 1)
        self._sent: dict[str, list[Any]] = {}
        self._given: dict[str, frozenset[str]] = {}
        self._nodes: dict[str, str] = {}
        self._stopped = 0

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # of the next version, and silences a warning
        try:
            import ray
        except ImportError:
            raise UserError("--ray: needs Ray; `pip install 'structune[ray]'` on every machine") from None
        self._ray: Any = ray
        before = {number: signal.getsignal(number) for number in stop_signals()}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self.address == LOCAL:
            options |= {"num_cpus": cores(), "object_store_memory": _STORE, "include_dashboard": False}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"--ray {self.address!r}: no cluster answers there ({reason}); start one with `ray start --head`, set "
                f"RAY_AUTH_MODE=token where it wants a token, or give --ray local"
            ) from None
        self._stack.callback(_bring_back, before)
        self._stack.callback(ray.shutdown)
        self._stack.enter_context(taken(self._on_signal))
        if not (self.work / MARK).is_file():
            write_text(self.work / MARK, uuid.uuid4().hex)
        try:
            self._check_room()
        except UserError:
            self._stack.close()
            raise
        self._task = remote(ray, self.cpus, self.gpus)
        return self

    @property
    def count(self) -> int:
        """How many jobs the cluster has room for now; machines may come and go."""
        there = self._ray.cluster_resources()
        room = there.get("CPU", 0) // self.cpus
        if self.gpus:
            room = min(room, there.get("GPU", 0) // self.gpus)
        return int(room if self.at_most is None else min(room, self.at_most))

    def start(self, key: str, job: Job) -> None:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        node = self._nodes.get(key)
        options = {} if node is None else {"scheduling_strategy": strategy(node_id=node, soft=True)}
        errand = Errand.of(job, self.work)
        sent = {each.key: self._sent[each.key] for each in errand.inputs if each.key in self._sent}
        self._given[key] = frozenset(sent)
        self._busy[key] = job, self._task.options(**options).remote(errand, sent)

    def wait(self, seconds: float | None = None) -> list[tuple[str, Outcome]]:
        until = None if seconds is None else time.monotonic() + seconds
        ended: list[tuple[str, Outcome]] = []
        while self._busy and not ended:
            self._pass_signals_on()
            refs = {ref: key for key, (_, ref) in self._busy.items()}
            ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=0.1)
            for ref in ready:
                key = refs[ref]
                job, _ = self._busy.pop(key)
                outcome = self._outcome(key, job, ref)
                if outcome is not None:
                    ended.append((key, outcome))
            if not ended and until is not None and time.monotonic() >= until:
                break
        return ended

    def stop(self) -> None:
        for _, ref in self._busy.values():
            self._ray.cancel(ref, force=False)

    def _outcome(self, key: str, job: Job, ref: Any) -> Outcome | None:
        """How a job ended; None: its inputs are sent, and it is begun again."""
        number = self.signals[0] if self.signals else signal.SIGINT
        try:
            answer: Answer = self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return Outcome("interrupted", number=number)
        except Exception as error:  # noqa: BLE001  (whatever goes wrong between machines is one run's failure)
            cause = getattr(error, "cause", None) or error
            reason = " ".join(str(cause).split())
            return Outcome("failed", f"Ray: {type(cause).__name__}: {reason[:500]}")
        self._nodes[key] = answer.node
        if answer.outcome is not None:
            stopped = answer.outcome.kind == "interrupted" or (self.signals and answer.outcome.kind == "failed")
            return Outcome("interrupted", step=answer.outcome.step, number=number) if stopped else answer.outcome
        if self.signals:
            return Outcome("interrupted", number=number)
        try:
            self._send(answer.missing, self._given[key])
        except (UserError, OSError) as error:
            return Outcome("failed", f"for {answer.machine}: {error}")
        self.start(key, job)
        return None

    def _send(self, missing: tuple[Input, ...], given: frozenset[str]) -> None:
        """Put what a machine lacks where the cluster finds it; jobs that began side by side lack the same.

        Args:
            missing: on the machine.
            given: keys of what its job was given already.
        """
        for each in missing:
            if each.key in given:
                raise UserError(f"{each.path}: was sent, and is not there")
            if each.key not in self._sent:
                self._sent[each.key] = [self._ray.put(each.packed())]

    def _check_room(self) -> None:
        there = self._ray.cluster_resources()
        if self.count < 1:
            raise UserError(
                f"--ray {self.address!r}: has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, "
                f"and a run wants {self.cpus:g} and {self.gpus:g}; set OMP_NUM_THREADS or --gpus"
            )
        if there.get("GPU", 0) and not self.gpus:
            say([f"--ray {self.address!r}: has {there['GPU']:g} GPUs, and no run gets one; --gpus 1 gives it one"])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)  # Ray is asked outside of the handler

    def _pass_signals_on(self) -> None:
        """At the first all runs are asked to save; at a second Ctrl-C they are killed."""
        if self.signals and not self._stopped:
            self._stopped = 1
            self.stop()
        if self.signals.count(signal.SIGINT) > 1 and self._stopped < 2:
            self._stopped = 2
            for _, ref in self._busy.values():
                self._ray.cancel(ref, force=True)


def _bring_back(handlers: dict[int, Any]) -> None:
    """Signal handlers as they were before Ray put its own there."""
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
