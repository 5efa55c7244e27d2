"""Held-out examples: stratified, whole groups, and the same on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from structune.data.examples import Examples


def stratified_split(examples: Examples, rows: Sequence[int], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Take about `count` of the rows and return (taken, the rest), each in the order of the file.

    Each stratum gives its share of `count`, rounded by largest remainder, and at least one group where it has two or
    more. A group (its stratum: the commonest in it) is taken whole or not at all, so a split can come out a little
    short. Groups come in the order of a SHA-256 of seed and group, which knows no row order, platform or library
    version.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        members[examples.groups[row]].append(row)
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(members, key=lambda name: _rank(seed, name)):
        strata[_commonest([examples.strata[row] for row in members[group]])].append(group)

    sizes = {stratum: sum(len(members[group]) for group in groups) for stratum, groups in strata.items()}
    taken: set[int] = set()
    for stratum, quota in _shares(sizes, count).items():
        taken.update(_fill(quota, [members[group] for group in strata[stratum]]))
    return [row for row in rows if row in taken], [row for row in rows if row not in taken]


def _fill(quota: int, groups: list[list[int]]) -> list[int]:
    """The rows of the groups that fit into `quota` one after the other; if none does, of the smallest of several."""
    filled: list[int] = []
    for group in groups:
        if len(filled) + len(group) <= quota:
            filled += group
    if not filled and len(groups) > 1:
        return min(groups, key=len)
    return filled


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """`count` divided in proportion to `sizes`: whole numbers by largest remainder that sum to `count`."""
    total = sum(sizes.values())
    count = min(count, total)
    shares = {name: count * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), name))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def _commonest(names: list[str]) -> str:
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))


def _rank(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{group}".encode()).digest()
