"""`make test-gpu` without a GPU: one line, and a failure; and what it writes where there is a device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    run = [sys.executable, "-m", "gpu", *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=surroundings, cwd=TESTS.parent, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device() -> None:
    result = command()
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("test-gpu: no CUDA device: torch ")
    assert result.stderr.count("\n") == 1


def test_what_is_written(tmp_path: Path) -> None:
    """On the CPU, with one test that passes; its tests are not collected where no device is named."""
    out = tmp_path / "results" / "gpu.json"
    chosen = "test_tf32_starts_as_the_base and own-toeplitz and not like"
    result = command("--device", "cpu", "--processes", "0", "--out", str(out), "tests/gpu", "-k", chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["device"]["type"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    assert report["tests"] == {"passed": 1}
    assert report["by_file"] == {"tests.gpu.test_precisions": {"passed": 1}}
    assert report["failed"] == []
