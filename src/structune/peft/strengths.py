"""The strengths of a layer's adapters as the mapping that PEFT reads and sets as `scaling`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


class Strengths(Mapping[str, float]):
    """Name → strength, of the adapters that there are when it is read.

    Args:
        deltas: the adapters by name.
    """

    def __init__(self, deltas: nn.ModuleDict) -> None:
        self.deltas = deltas

    def __getitem__(self, name: str) -> float:
        delta: Any = self.deltas[name]
        return float(delta.strength)

    def __iter__(self) -> Iterator[str]:
        return iter(self.deltas)

    def __len__(self) -> int:
        return len(self.deltas)

    def copy(self) -> dict[str, float]:
        """As they are now."""
        return dict(self)
