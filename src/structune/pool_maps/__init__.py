"""How the numbers of a pool reach the generators of its blocks: one map a file. The names are known without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structune.pool_maps.pool_map import PoolMap

NAMES = ("index", "signed", "projection")
"""The maps by their number in a file: only ever append to it."""

OF_OLD = NAMES[0]
"""The map of files that do not say."""

DEFAULT = "index"
"""The map where nothing is said."""


def check(name: Any) -> None:
    """Raise ValueError unless there is a map of that name."""
    if name not in NAMES:
        raise ValueError(f"pool_map={name!r} must be one of {', '.join(map(repr, NAMES))}")


def get(name: str) -> type[PoolMap]:
    """The map of that name.

    Raises:
        ValueError: there is none.
    """
    check(name)
    from structune.pool_maps.index import IndexMap
    from structune.pool_maps.projection import Projection
    from structune.pool_maps.signed import SignedMap

    return {each.name: each for each in (IndexMap, SignedMap, Projection)}[name]
