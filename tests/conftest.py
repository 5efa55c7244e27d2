"""Shared by all tests: one thread per process, repeatable random numbers, nothing written into the checkout."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import hypothesis
import hypothesis.configuration
import pytest
import torch

torch.set_num_threads(1)

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "structune-hypothesis")
hypothesis.settings.register_profile("structune", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("structune")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
