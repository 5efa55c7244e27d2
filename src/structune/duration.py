"""A time as a person says it."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Two digits or three, and the unit that goes with them: `40 s`, `7 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
