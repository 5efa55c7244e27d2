"""`make test-gpu` and `make bench-gpu` without a GPU: one line, and a failure; and what they write elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent


def command(*arguments: str, module: str = "gpu") -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    run = [sys.executable, "-m", module, *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=surroundings, cwd=TESTS.parent, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device() -> None:
    result = command()
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("test-gpu: no CUDA device: torch ")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_benchmarks_without_a_device() -> None:
    result = command(module="gpu.bench")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("bench-gpu: no CUDA device: torch ")
    assert result.stderr.count("\n") == 1


def test_benchmarks_are_written(tmp_path: Path) -> None:
    """On the CPU and small: what was measured, on what and with what."""
    result = command("--device", "cpu", "--quick", "--out", str(tmp_path), "widths", module="gpu.bench")
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = tmp_path.glob("*.json")
    assert path.name.startswith("widths-cpu-")
    assert path.with_suffix(".csv").is_file()
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["device"] == "cpu"
    assert results["machine"]["cpu"]
    assert results["versions"]["torch"] == version("torch")
    rows = [row for case in results["cases"] for row in case["rows"]]
    assert {"frozen", "lora-r16", "peft-c3a-d", "toeplitz-k4"} <= {row["method"] for row in rows if row["ms"]}


def test_what_is_written(tmp_path: Path) -> None:
    """On the CPU, with one test that passes; its tests are not collected where no device is named."""
    out = tmp_path / "results" / "gpu.json"
    chosen = "test_tf32_starts_as_the_base and own-toeplitz and not like"
    result = command("--device", "cpu", "--processes", "0", "--out", str(out), "tests/gpu", "-k", chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["device"]["type"] == "cpu"
    assert report["versions"]["torch"] == version("torch")
    assert report["tests"] == {"passed": 1}
    assert report["by_file"] == {"tests.gpu.test_precisions": {"passed": 1}}
    assert report["failed"] == []
