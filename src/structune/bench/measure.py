"""One case: every method of the suite on the same layer, in one process."""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Mapping

import torch

from structune.bench.clock import Clock, clock
from structune.bench.memory import Saved, peak_bytes, saved_bytes
from structune.bench.method import FROZEN, Method
from structune.bench.results import CaseResult, Row
from structune.bench.rounds import interleaved, repeats_for
from structune.bench.suite import Case, Suite
from structune.bench.workload import Subject, Workload, workload
from structune.errors import UserError

DIGITS = 4  # of a millisecond
WARMING = 0.2  # about the share of a case that goes by before the first round


def measure_case(
    suite: Suite,
    case: Case,
    methods: list[Method],
    device: str,
    expected: Mapping[str, int],
    advance: Callable[[float], object] = lambda share: None,
) -> CaseResult:
    """Build, warm up, look at memory, then time all methods round by round.

    A method that does not fit the case, fails, or would need more memory than the suite allows has a note instead of
    numbers.

    Args:
        suite: what is measured, and how often.
        case: on what.
        methods: the rows; the frozen layer among them.
        device: `cpu` or `cuda`.
        expected: peak bytes to expect, by method's label, where something is known.
        advance: told which share of the case has been done since the last call.
    """
    work = workload(suite, case, device)
    ready: dict[str, _Ready] = {}
    rows: dict[str, Row] = {}
    limit = suite.memory_limit_gib * 2**30
    for method in methods:
        advance(WARMING / len(methods))
        if expected.get(method.label, 0) > limit:
            gib = expected[method.label] / 2**30
            note = f"left out: would need about {gib:.0f} GiB, the suite allows {suite.memory_limit_gib:g}"
            rows[method.label] = Row(method=method.label, kind=method.kind, note=note)
            continue
        try:
            ready[method.label] = _Ready(suite, work, method, clock(device))
        except UserError:
            raise
        except (ValueError, RuntimeError, NotImplementedError) as error:
            if method.name == FROZEN:
                raise
            rows[method.label] = Row(method=method.label, kind=method.kind, note=_reason(error))
    times: list[list[float]] = []
    if "time" in suite.measure:
        calls = [one.subject.step for one in ready.values()]
        repeats = [one.repeats for one in ready.values()]
        after_round = functools.partial(advance, (1 - WARMING) / suite.rounds)
        times = interleaved(calls, repeats, suite.rounds, suite.seed, clock(device), after_round)
    for one, ms in itertools.zip_longest(ready.values(), times):
        rows[one.method.label] = one.row(ms)
    dtype = suite.dtype(case, device)
    result = CaseResult(
        name=case.name,
        dtype=dtype,
        input_bytes=work.input_bytes,
        weight_bytes=work.weight_bytes,
        rows=[rows[method.label] for method in methods],
    )
    del ready, work
    gc.collect()
    return result


class _Ready:
    """A method that was built and warmed up, and whose memory was looked at."""

    def __init__(self, suite: Suite, work: Workload, method: Method, time: Clock) -> None:
        self.method = method
        self.subject = subject = work.subject(method)
        self.repeats = repeats_for(subject.step, suite.warmup, suite.least_ms, time) if "time" in suite.measure else 1
        self.saved: Saved | None = None
        self.peak: int | None = None
        if "memory" in suite.measure:
            self.saved, self.peak = _memory(subject, work)

    def row(self, ms: list[float] | None) -> Row:
        return Row(
            method=self.method.label,
            kind=self.method.kind,
            algorithm=self.subject.algorithm,
            trainable=self.subject.trainable,
            repeats=self.repeats if ms else None,
            ms=[round(value, DIGITS) for value in ms] if ms else None,
            saved=self.saved.total if self.saved else None,
            saved_inputs=self.saved.inputs if self.saved else None,
            peak=self.peak,
        )


def _memory(subject: Subject, work: Workload) -> tuple[Saved | None, int]:
    """What is saved for backward (None without a backward), and the peak of a whole call."""
    subject.step()  # whatever is made once and kept is there now
    for tensor in (*work.inputs, *subject.model.parameters()):
        tensor.grad = None
    peak = peak_bytes(subject.step, work.device)
    if subject.backward is None:
        return None, peak
    own: list[torch.Tensor] = [*subject.model.parameters(), *subject.model.buffers()]
    return saved_bytes(subject.forward, own, work.inputs), peak


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
