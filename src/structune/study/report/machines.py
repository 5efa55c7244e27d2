"""What was run where."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from structune.duration import duration
from structune.study.report.cells import Cell

_NOT_SAID = "not recorded"


@dataclass(frozen=True)
class Machine:
    """Runs on one kind of device with the same versions.

    Attributes:
        name: of the device.
        versions: of what matters, in words.
        runs: how many.
        seconds: they trained together.
        dates: from when to when, as far as they are recorded.
    """

    name: str
    versions: str
    runs: int
    seconds: float
    dates: str

    def time(self) -> str:
        """The training time of all runs together, in words."""
        return duration(self.seconds)


def device(run: dict[str, Any]) -> str:
    """On what a run was trained, in words; numbers that ran away are no record of it."""
    versions = run.get("versions", {})
    kind = run.get("device")
    gpu = versions.get("gpu", "none")
    if kind == "cuda" or (kind is None and gpu not in ("none", "", None)):
        return str(gpu)
    if not versions:
        return _NOT_SAID
    threads = str(versions.get("cpu_threads", ""))
    return f"CPU {versions.get('cpu', '')}, {threads} {'thread' if threads == '1' else 'threads'}"


def machines(cells: Sequence[Cell]) -> list[Machine]:
    """Where the runs of a study were made, the commonest first."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        for run in cell.runs:
            found.setdefault((device(run), _versions(run)), []).append(run)
    each = [
        Machine(*key, len(runs), sum(run.get("train_seconds", 0.0) for run in runs), _dates(runs))
        for key, runs in found.items()
    ]
    return sorted(each, key=lambda machine: -machine.runs)


def _dates(runs: Sequence[dict[str, Any]]) -> str:
    known = sorted(run["date"] for run in runs if "date" in run)
    if not known:
        return _NOT_SAID
    said = known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
    return said if len(known) == len(runs) else f"{said}; {len(runs) - len(known)} {_NOT_SAID}"


def _versions(run: dict[str, Any]) -> str:
    known = run.get("versions", {})
    wanted = ("structune", "torch", "transformers", "peft", "python", "platform")
    return ", ".join(f"{key} {known[key]}" for key in wanted if key in known) or _NOT_SAID


@dataclass(frozen=True)
class Cost:
    """What a step of a method costs on one task and device: medians over its runs there."""

    device: str
    task: str
    label: str
    seconds: float
    memory: float
    memory_kind: str


def costs(cells: Sequence[Cell]) -> list[Cost]:
    """Of every method, task and device, where runs have a record of it."""
    found = []
    for cell in cells:
        by_device: dict[str, list[dict[str, Any]]] = {}
        for run in cell.runs:
            if "seconds_per_step" in run and "peak_memory_bytes" in run:
                by_device.setdefault(device(run), []).append(run)
        for name, runs in by_device.items():
            seconds = statistics.median(run["seconds_per_step"] for run in runs)
            memory = statistics.median(run["peak_memory_bytes"] for run in runs)
            found.append(Cost(name, cell.task, cell.label, seconds, memory, runs[0].get("peak_memory_kind", "")))
    return found
