"""Configurations whose file has the same bytes in every process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftConfig


@contextmanager
def in_order(config: PeftConfig) -> Iterator[None]:
    """Within, every set among the options, such as target_modules, is a sorted list, as is a range.

    PEFT writes sets as they iterate, which Python's hash seed decides.
    """
    options = vars(config)
    before = {name: value for name, value in options.items() if isinstance(value, (set, frozenset, range))}
    options.update({name: sorted(value) for name, value in before.items()})
    try:
        yield
    finally:
        options.update(before)
