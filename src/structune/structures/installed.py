"""Families that installed distributions declare, known by name before anything of theirs is imported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import NamedTuple

GROUP = "structune.families"
"""The group of entry points: name = module:class."""


class Declaration(NamedTuple):
    """One entry point.

    Args:
        name: of the family.
        place: "module:class".
        distribution: name and version of what declares it.
    """

    name: str
    place: str
    distribution: str


def declarations() -> Iterator[Declaration]:
    """All entry points of the group, those of a distribution that stands on the path twice once."""
    seen = set()
    for distribution in distributions():
        try:
            # Texts first: to read the names and entry points of a whole environment takes long.
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()  # as installers compare names
            if name in seen:
                continue
            seen.add(name)
            points = [point for point in distribution.entry_points if point.group == GROUP]
        except Exception as error:  # noqa: BLE001 (whatever a file that no installer wrote makes of the reader)
            warnings.warn(
                f"{_with_version(distribution)}: its entry_points.txt cannot be read ({error}), so no family of it is "
                "known: install it again",
                stacklevel=2,
            )
            continue
        for point in points:
            yield Declaration(point.name, point.value.partition("[")[0].strip(), _with_version(distribution))


def _with_version(distribution: Distribution) -> str:
    return f"{distribution.metadata['Name']} {distribution.metadata['Version']}"
