"""A tiny suite of one's own, and results made of known numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from structune.bench.results import CaseResult, Results, Row
from structune.bench.suite import Suite, load_suite

CONTENT: dict[str, Any] = {
    "title": "Tiny layers",
    "workload": "layer",
    "rounds": 2,
    "warmup": 1,
    "least_ms": 0,
    "methods": ["lora-r8", "toeplitz-k4"],
    "cases": [{"weight": [16, 8], "tokens": 4}, {"weight": [8, 8], "tokens": 4}],
    "targets": [{"methods": ["toeplitz-*"], "time": [1.5, "lora-r8"], "saved": "input", "peak": "weight"}],
    "quick": {"cases": [{"weight": [8, 8], "tokens": 1}]},
}
SuiteFile = Callable[..., Path]


@pytest.fixture
def suite_file(tmp_path: Path) -> SuiteFile:
    """Write the tiny suite with some values changed (None: left out)."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def screen() -> Console:
    """A console whose text a test can read: `screen.file.getvalue()`."""
    return Console(file=io.StringIO(), width=120)


Invent = Callable[..., Results]


@pytest.fixture
def invent(suite_file: SuiteFile) -> Invent:
    """Results of the tiny suite with given times: method → milliseconds, the same in each case."""

    def results(ms: dict[str, Sequence[float]], suite: Suite | None = None, **fields: Any) -> Results:
        suite = suite or load_suite(suite_file())
        cases = [
            CaseResult(
                name=case.name,
                dtype="float32",
                input_bytes=1000,
                weight_bytes=500,
                rows=[
                    Row(method=method, kind=kind(method), ms=list(values), trainable=7, repeats=1, **fields)
                    for method, values in ms.items()
                ],
            )
            for case in suite.all_cases
        ]
        return Results(
            suite=suite.model_dump(mode="json"),
            device="cpu",
            machine={"cpu": "Some CPU", "threads": 2, "ram_gib": 1, "gpu": None, "system": "any"},
            versions={"python": "3", "torch": "2", "peft": "0", "transformers": "5", "structune": "0"},
            commit={"id": "0123456789abcdef", "dirty": False},
            date="2026-01-02T03:04:05+00:00",
            cases=cases,
        )

    return results


def kind(method: str) -> str:
    return "structune-toeplitz" if method.startswith("toeplitz") else method.partition("-")[0]
