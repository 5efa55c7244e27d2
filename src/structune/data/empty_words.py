"""What a cell shows, and words that stand for an empty one."""

from __future__ import annotations

import unicodedata

_EMPTY_WORDS = frozenset(
    [
        "nan", "-nan", "na", "n/a", "n.a.", "n.a", "#n/a", "#n/a n/a", "#na", "<na>", "none", "null", "nil", "nat",
        "(null)", "[null]", "<null>", "<none>", "undefined",
    ]
)  # fmt: skip


def is_empty_word(value: str) -> bool:
    """`nan`, `None`, `NULL`, `N/A` and other spellings of an empty cell."""
    return value.strip().lower() in _EMPTY_WORDS


def visible(text: str) -> str:
    """The text without characters that cannot be seen, such as a byte-order mark or a space of no width."""
    return "".join(char for char in text if unicodedata.category(char) != "Cf")
