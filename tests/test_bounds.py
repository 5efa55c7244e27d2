"""What `make test-floor` installs is what pyproject.toml allows at the least."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_floor_is_the_lowest_that_is_allowed() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *(line for name in ("train", "quantised", "examples", "testing") for line in extras[name]),
    ]
    lowest = dict(re.fullmatch(r"([\w-]+)>=([\w.]+)(?:,<.*)?", line).groups() for line in needed if "[" not in line)
    lines = (ROOT / "constraints-floor.txt").read_text(encoding="utf-8").splitlines()
    floor = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert len(lowest) > 15
    for package, version in lowest.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", floor[package]), package
