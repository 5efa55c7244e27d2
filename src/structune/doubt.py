"""Doubts: what works, but is hardly meant, as warnings of a class of their own.

The command line shows them as lines; in Python they are ordinary warnings, which `warnings.filterwarnings` governs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable


class DataWarning(UserWarning):
    """Something about the examples that the user should know before believing a result."""


def say(doubts: Iterable[str]) -> None:
    """Issue each as a warning at the line that called into this package."""
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("structune."):
        frame, level = frame.f_back, level + 1
    for doubt in doubts:
        warnings.warn(DataWarning(doubt), stacklevel=level)
