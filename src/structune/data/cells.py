"""What a cell holds: its text, and whether there is anything in it."""

from __future__ import annotations

import json
from typing import Any

from structune.data.empty_words import visible


def as_text(value: Any) -> str:
    """A text as it is, nothing for what is missing, anything else as JSON writes it (what JSON has not, as Python)."""
    if isinstance(value, str):
        return value
    return "" if is_missing(value) else json.dumps(value, default=str).strip('"')


def is_missing(value: Any) -> bool:
    """Whether a format says that there is no value: None, or NaN among numbers."""
    return value is None or (isinstance(value, float) and value != value)


def is_empty(value: Any) -> bool:
    """Whether nothing is there, or nothing that can be seen. An empty list is something."""
    return not visible(value).strip() if isinstance(value, str) else is_missing(value)


def is_binary(value: Any) -> bool:
    """Whether it is bytes, or holds them, as a cell with an image does."""
    return isinstance(value, bytes) or (isinstance(value, dict) and any(map(is_binary, value.values())))
