"""What tests of studies look at while one goes on, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from structune.study.results.files import Results


def scores(folder: Path) -> dict[str, Any]:
    """Of every run by rate and seed, on the validation part and on the test part."""
    return {f"{r['rate']:.3g} {r['seed']}": (r["validation"], r["test"]) for r in Results(folder).all()}


def wait_until(there: Callable[[], object]) -> None:
    """For two minutes at most."""
    until = time.monotonic() + 120
    while not there() and time.monotonic() < until:
        time.sleep(0.01)
