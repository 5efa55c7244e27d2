"""Leaving out what would not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable

from structune.bench.suite import Case


def expected_peak(case: Case, earlier: Iterable[tuple[Case, int]]) -> int | None:
    """The peak to expect of a method in `case`: that of its largest earlier case, grown in proportion.

    Args:
        case: the next one.
        earlier: cases that the method was measured in, with the peak bytes there.

    Returns:
        bytes, or None when no earlier case is smaller.
    """
    smaller = [(other.size, peak) for other, peak in earlier if other.size <= case.size]
    if not smaller:
        return None
    size, peak = max(smaller)
    return round(peak * case.size / size)
