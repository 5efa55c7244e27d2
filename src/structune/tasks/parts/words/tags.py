"""Tags of words that say where an entity begins (`B-place`), goes on (`I-place`), and that there is none (`O`)."""

from __future__ import annotations

import re
from collections.abc import Collection

_BIO = re.compile(r"O|[BI]-.+|[ES]-.+", re.DOTALL)


def is_bio(tag: str) -> bool:
    """Whether it is O, or has a B-, I-, E- or S- before a name."""
    return _BIO.fullmatch(tag) is not None


def as_bio(tag: str) -> str:
    """The tag as one of BIO: any other makes its word an entity of its own."""
    return tag if is_bio(tag) else f"B-{tag}"


def kind_of(tag: str) -> str:
    """The name of the entity; nothing for O."""
    return "" if tag == "O" else as_bio(tag).partition("-")[2]


def tags_in_order(tags: Collection[str]) -> list[str]:
    """O, then each entity's B and I, by name."""
    return sorted(tags, key=lambda tag: (tag != "O", kind_of(tag), tag))
