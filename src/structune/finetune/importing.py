"""Importing heavy libraries without their remarks about each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_remarks() -> Iterator[None]:
    """Within, no logger says less than an error.

    For import statements of the command alone: torchao, bitsandbytes, torch and others log there which extension they
    do without on this machine, and which of their names will change; nobody who runs a recipe can do anything about
    it. What they say while they work is shown, and users of the library see everything.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
