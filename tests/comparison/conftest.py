"""A recipe with learning rates of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def recipe_file(tiny_model: Path, tmp_path: Path) -> Path:
    """A recipe whose own method is C3A with blocks of 8, at learning rates of its own."""
    rows = "".join(f"a {word} film {n},{word}\n" for n in range(40) for word in ("good", "bad"))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    content = {
        "model": {"name": str(tiny_model)},
        "data": {"train": str(tmp_path / "films.csv"), "evaluation_examples": 20},
        "method": {"name": "c3a", "block_size": 8},
        "train": {"max_steps": 4, "batch_size": 8, "log_steps": 1, "learning_rate": 0.03, "device": "cpu"},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
