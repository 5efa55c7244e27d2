"""Studies whose results are made up: what they come to is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from structune.study.report import page
from structune.study.report.figures.drawn import Drawn
from structune.study.report.page import write_report
from structune.study.results.files import Results, Wanted
from structune.study.search.points import Point
from structune.study.study_file import Study

HOSTILE = '<b>&" $x_1$ {{ 7*7 }}, a label that is by far longer than the screen of any phone is wide'
"""A label that nothing may take for anything but text."""


class MadeUp:
    """A study and the folder of its results."""

    def __init__(self, folder: Path, **content: Any) -> None:
        self.folder, self.file = folder, folder / "made-up.yaml"
        self.content = {
            "name": "made-up",
            "seeds": [0, 1, 2],
            "rates": [0.001, 0.004, 0.016],
            "further_rates": 1,
            "tasks": {name: {"data": {"embedded": "tweets"}} for name in ("one", "two")},
            "methods": [
                {"label": "pool {pool_size}", "method": {"name": "hydra", "pool_size": [13, 100]}},
                {"label": "LoRA r={rank}", "method": {"name": "lora", "rank": [8]}},
                {"label": HOSTILE.replace("{", "{{").replace("}", "}}"), "method": {"name": "c3a"}},
            ],
        } | content
        self.file.write_text(yaml.safe_dump(self.content), encoding="utf-8")
        self.plan = Study.load(self.file)
        self.results = Results(folder / "results" / "made-up")

    def add(self, task: str, label: str, rate: float, seed: int, validation: float | None,
            test: float | None = None, **more: Any) -> None:  # fmt: skip
        """Write the result of a run; without a validation score its numbers ran away."""
        method = self.plan.settings()[label]
        key = self.plan.scores()[task].key
        numbers = {"lora": 73_728, "c3a": 4_608}.get(method.name) or method.pool_size
        content: dict[str, Any] = {
            "task": task, "method": label, "rate": rate, "seed": seed, "validation": None, "test": None,
            "settings": {"data": ["d"], "method": method.model_dump(mode="json", exclude_none=True)},
        }  # fmt: skip
        if validation is not None:
            content |= {
                "validation": {key: validation, "loss": 0.5}, "trainable_adapter": numbers, "trainable_head": 770,
                "adapter_bytes": 4 * numbers, "steps": 20, "seconds_per_step": 0.01 * (1 + numbers % 7),
                "peak_memory_bytes": 2**27, "peak_memory_kind": "rss growth", "device": "cpu", "train_seconds": 30.0,
                "versions": {"torch": "2.13.0", "cpu": "x86_64", "cpu_threads": "2", "gpu": "none"},
                "curve": [[10, 0.7], [20, 0.7 - 0.1 * validation]],
                "validation_curve": {"step": [10, 20], "loss": [0.48, 0.5], key: [validation - 0.1, validation]},
            }  # fmt: skip
        if test is not None:
            content["test"] = {key: test, "loss": 0.5, "examples": 1000}
        path = self.results.file(Wanted(task, label, method, Point.of({"rate": rate, **more.get("tried", {})}), seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content | more), encoding="utf-8")

    def fill(self, scores: dict[tuple[str, str], list[float]]) -> None:
        """Search three rates, of which the middle one is best, and score these seeds."""
        for (task, label), tests in scores.items():
            for rate in (0.001, 0.016):
                self.add(task, label, rate, 0, tests[0] - 0.05)
            for seed, score in enumerate(tests):
                self.add(task, label, 0.004, seed, score - 0.01, score)


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)


WHOLE = {
    ("one", "pool 13"): [0.601, 0.600, 0.603], ("two", "pool 13"): [0.70, 0.70, 0.70],
    ("one", "pool 100"): [0.79, 0.81, 0.83], ("two", "pool 100"): [0.89, 0.93, 0.90],
    ("one", "LoRA r=8"): [0.800, 0.801, 0.802], ("two", "LoRA r=8"): [0.91, 0.90, 0.92],
    ("one", HOSTILE): [0.85, 0.80, 0.81], ("two", HOSTILE): [0.90, 0.92, 0.88],
}  # fmt: skip
"""Test scores of three seeds: pool 13 is far behind LoRA on both tasks, the others are near it."""


@pytest.fixture
def whole(made_up: MadeUp) -> MadeUp:
    """All runs are there."""
    made_up.fill(WHOLE)
    return made_up


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole study's report, and beside it the study; to be read."""
    study = MadeUp(tmp_path_factory.mktemp("report"))
    study.fill(WHOLE)
    study.add("one", "pool 13", 0.064, 0, None)
    return write_report(study.plan, study.results, study.folder / "out", "the command").parent


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not drawn, which takes longest of all."""
    for name in ("draw_scores", "draw_rates", "draw_curves", "draw_costs"):
        monkeypatch.setattr(page, name, lambda *_: Drawn("none", "<svg></svg>", b"", frozenset()))
