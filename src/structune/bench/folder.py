"""Where the suites lie: `benchmarks/` of a checkout, a folder of this package once it is built."""

from __future__ import annotations

from pathlib import Path

SUITES = (
    *("layer", "model", "memory", "c3a-memory", "inference", "growth", "factored", "compiled"),
    *("widths", "widths-inference", "calibrate", "calibrate-bf16", "calibrate-cuda"),
)


def benchmarks_folder() -> Path:
    """The folder of the suites that come with structune."""
    here = Path(__file__).parent
    built = here / "suites"
    return built if built.is_dir() else here.parents[2] / "benchmarks"
