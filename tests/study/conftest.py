"""A small study of films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def content(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A study of films: two ranks of LoRA and a pool, two rates, two seeds, two steps each."""
    rows = "".join(f"a {word} film {n},{word}\n" for n in range(60) for word in ("good", "bad"))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    return {
        "name": "tiny",
        "seeds": [3, 4],
        "rates": [0.01, 0.04],
        "further_rates": 0,
        "model": {"name": str(tiny_model)},
        "tasks": {
            "films": {
                "data": {"train": str(tmp_path / "films.csv"), "evaluation_examples": 40},
                "validation_examples": 20,
                "train": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
            }
        },
        "methods": [
            {"label": "LoRA r={rank}", "method": {"name": "lora", "rank": [1, 2]}},
            {"label": "pool", "method": {"name": "hydra", "pool_size": 13, "pool_map": "signed"}},
        ],
    }
