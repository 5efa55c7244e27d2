"""What families share that add up products of two generators: any number of terms, so that sums are blocks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from structune.structures.base import Structure, Term, unit_scale


@dataclass(frozen=True)
class TermsStructure(Structure):
    """W = Σ_l F(X_l, Y_l) with F linear in both; X and Y have the terms as their first axis, and X starts at zero.

    Args:
        terms: m, how many products are added up.
    """

    terms: int = 1

    pair: ClassVar[tuple[str, str]]
    """The names of X and Y."""

    @property
    def fan(self) -> float:
        """How many products of entries of X and Y an entry of W sums, on average."""
        return self.terms

    def from_raw(self, *args: Any, **raw: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: numbers * scale for name, numbers in raw.items()}

    def to_raw(self, *args: Any, **generators: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: values / scale for name, values in generators.items()}

    @classmethod
    def sum_of(cls, terms: Sequence[Term]) -> tuple[Structure, dict[str, Tensor]] | None:
        """All terms of the blocks, where these have the same options else, the weights on X."""
        blocks = [cast(TermsStructure, structure) for _, structure, _ in terms]
        if len({replace(block, terms=1) for block in blocks}) > 1:
            return None
        X, Y = cls.pair
        joined = cls._joined(blocks[0], [(weight * g[X], g[Y]) for weight, _, g in terms])
        return replace(blocks[0], terms=sum(block.terms for block in blocks)), joined

    def difference(
        self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> tuple[Structure, dict[str, Tensor]]:
        """F(X − X⁰, Y) + F(X⁰, Y − Y⁰), twice as many terms."""
        X, Y = self.pair
        parts = [(generators[X] - start[X], generators[Y]), (start[X], generators[Y] - start[Y])]
        return replace(self, terms=2 * self.terms), self._joined(self, parts)

    @classmethod
    def _joined(cls, structure: Structure, parts: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """X and Y of all parts, one after the other along their first axis."""
        return {
            name: torch.cat(tensors, dim=-len(structure.shapes[name]))
            for name, tensors in zip(cls.pair, zip(*parts, strict=True), strict=True)
        }
