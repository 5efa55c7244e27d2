"""Tables say what the runs' metrics say."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from structune.comparison.side_by_side import Comparison
from structune.comparison.tradeoff_figure import draw_tradeoff
from structune.finetune.run_folder.run import Run

METRICS: dict[str, Any] = {
    "eval_accuracy": 0.8125, "eval_loss": 0.5, "eval_examples": 2000, "train_examples": 3000, "steps": 188, "seed": 0,
    "trainable_adapter": 27648, "trainable_head": 770, "adapter_bytes": 112304, "seconds_per_step": 0.4567,
    "peak_memory_bytes": 500 * 2**20, "peak_memory_kind": "rss growth", "device": "cpu", "dtype": "fp32",
}  # fmt: skip


RECIPE = "data: {train: films.csv}\noutput: here\ntrain: {learning_rate: 1e-3, head_learning_rate: 1e-3}\n"


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Run]:
    """A run folder with these metrics and versions."""

    def make(name: str, versions: dict[str, str] | None = None, **changes: Any) -> Run:
        run = Run(tmp_path / name)
        run.folder.mkdir()
        run.recipe_file.write_text(RECIPE)
        run.metrics_file.write_text(json.dumps(METRICS | changes))
        run.versions_file.write_text(json.dumps(versions or {"torch": "2.13.0"}))
        return run

    return make


def markdown_rows(page: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]


def test_markdown_holds_the_metrics(finished: Callable[..., Run]) -> None:
    c3a = finished("c3a")
    head = finished("head", eval_accuracy=0.605, trainable_adapter=0, adapter_bytes=16, seconds_per_step=0.1)
    page = Comparison.of("films", {"c3a": [c3a], "head": [head]}).to_markdown()
    rows = markdown_rows(page)
    assert rows[0][:2] == ["method", "accuracy %"]
    assert rows[2] == ["c3a", "81.2", "27,648", "770", "112.3", "0.457", "500"]
    assert rows[3] == ["head", "60.5", "0", "770", "–", "0.100", "500"]
    assert "3,000 examples to train on, 188 steps, 2,000 held out; seed 0." in page
    # √(0.605 · 0.395 / 2000) = 0.01093
    assert "standard error of up to 1.1 points." in page
    assert ["torch", "2.13.0"] in rows


def test_seeds_are_averaged(finished: Callable[..., Run]) -> None:
    accuracies, seconds = [0.80, 0.82, 0.87], [0.4, 0.5, 0.9]
    runs = [
        finished(f"lora-seed{n}", seed=n, eval_accuracy=a, seconds_per_step=s)
        for n, (a, s) in enumerate(zip(accuracies, seconds, strict=True))
    ]
    comparison = Comparison.of("films", {"lora": runs})
    (row,) = comparison.rows
    assert row.score == pytest.approx(0.83)
    assert row.deviation == pytest.approx(statistics.stdev(accuracies)) == pytest.approx(math.sqrt(0.0013))
    assert row.seconds_per_step == pytest.approx(0.6)
    assert row.cells()[1] == "83.0 ± 3.6"
    assert "seeds 0, 1, 2" in comparison.to_markdown()
    assert [run["folder"] for run in comparison.to_json()["methods"][0]["runs"]] == [run.folder.name for run in runs]


def test_json_keeps_every_metric(finished: Callable[..., Run]) -> None:
    content = json.loads(json.dumps(Comparison.of("films", {"c3a": [finished("c3a")]}).to_json()))
    assert content["methods"][0]["runs"][0] == {"folder": "c3a"} | METRICS


def test_differing_versions_are_all_named(finished: Callable[..., Run]) -> None:
    runs = {"c3a": [finished("c3a", {"torch": "2.13.0"})], "lora": [finished("lora", {"torch": "2.14.0"})]}
    assert Comparison.of("films", runs).versions == {"torch": "2.13.0 and 2.14.0"}


@pytest.mark.parametrize("methods", [["c3a", "lora", "head"], ["c3a"], ["head"]])
def test_figure_is_drawn(methods: list[str], finished: Callable[..., Run], tmp_path: Path) -> None:
    runs = {m: [finished(m, trainable_adapter=0 if m == "head" else 1000 * len(m))] for m in methods}
    draw_tradeoff(Comparison.of("films", runs), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
