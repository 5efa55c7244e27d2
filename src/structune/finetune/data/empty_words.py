"""Words that stand for an empty cell."""

from __future__ import annotations

_EMPTY_WORDS = frozenset(
    [
        "nan", "-nan", "na", "n/a", "n.a.", "n.a", "#n/a", "#n/a n/a", "#na", "<na>", "none", "null", "nil", "nat",
        "(null)", "[null]", "<null>", "<none>", "undefined",
    ]
)  # fmt: skip


def is_empty_word(value: str) -> bool:
    """`nan`, `None`, `NULL`, `N/A` and other spellings of an empty cell."""
    return value.strip().lower() in _EMPTY_WORDS
