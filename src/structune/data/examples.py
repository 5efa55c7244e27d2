"""Examples of any task: what a model sees, what it should answer, and what belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Examples:
    """Rows as columns.

    Attributes:
        inputs: what the model sees, by name: a list with an entry for each example.
        labels: what it should answer, an entry for each; None for examples without labels.
        groups: a name for each; those of one name stay on one side of a split.
        strata: a name for each; a split gives each name its share. Mostly the label.
    """

    inputs: Mapping[str, list[Any]]
    labels: list[Any] | None
    groups: list[str]
    strata: list[str]

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def unlabelled(cls, inputs: Mapping[str, list[Any]]) -> Examples:
        """What a model sees, and nothing else: each example is a group of its own."""
        count = len(next(iter(inputs.values()), []))
        return cls(inputs, None, [str(row) for row in range(count)], [""] * count)

    def labelled(self, labels: list[Any], groups: list[str], strata: list[str]) -> Examples:
        """The same inputs with what they should answer, and what a split has to know."""
        return Examples(self.inputs, labels, groups, strata)

    def subset(self, rows: Sequence[int]) -> Examples:
        """These rows, in this order."""
        return Examples(
            {name: [values[row] for row in rows] for name, values in self.inputs.items()},
            None if self.labels is None else [self.labels[row] for row in rows],
            [self.groups[row] for row in rows],
            [self.strata[row] for row in rows],
        )

    def rows(self) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """(inputs, label) of each example; the label is None where there is none."""
        labels = [None] * len(self) if self.labels is None else self.labels
        yield from zip(zip(*self.inputs.values(), strict=True), labels, strict=True)
