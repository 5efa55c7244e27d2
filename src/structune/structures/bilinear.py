"""What families share whose entries sum products of two generators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from structune.structures.base import Structure, Term, unit_scale


@dataclass(frozen=True)
class Bilinear(Structure):
    """W = Σ_l F(X_l, Y_l) with F linear in both: as many products as an option of the family says.

    Where the family has no generators besides, sums and differences of its blocks are blocks with more products.
    """

    pair: ClassVar[tuple[str, str]]
    """The names of X and Y."""

    counted: ClassVar[str]
    """The option that says how many products."""

    @property
    @abstractmethod
    def fan(self) -> float:
        """How many products of entries of X and Y an entry of W sums, by their size."""

    def from_raw(self, *args: Any, **raw: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: numbers * scale if name in self.pair else numbers for name, numbers in raw.items()}

    def to_raw(self, *args: Any, **generators: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: values / scale if name in self.pair else values for name, values in generators.items()}

    def axis_of(self, name: str) -> int:
        """The axis of X or Y along which the products are. Default: the first."""
        return -len(self.shapes[name])

    @classmethod
    def sum_of(cls, terms: Sequence[Term]) -> tuple[Structure, dict[str, Tensor]] | None:
        """All products of the blocks, where these have the same options else, the weights on X."""
        blocks = [cast(Bilinear, structure) for _, structure, _ in terms]
        if len({block._with(1) for block in blocks}) > 1 or not blocks[0]._is_pair_alone:
            return None
        X, Y = cls.pair
        joined = blocks[0]._joined([(weight * g[X], g[Y]) for weight, _, g in terms])
        return blocks[0]._with(sum(block.options[cls.counted] for block in blocks)), joined

    def difference(
        self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> tuple[Structure, dict[str, Tensor]] | None:
        """F(X − X⁰, Y) + F(X⁰, Y − Y⁰), twice as many products, of which none is subtracted from another."""
        if not self._is_pair_alone:
            return None
        X, Y = self.pair
        parts = [(generators[X] - start[X], generators[Y]), (start[X], generators[Y] - start[Y])]
        return self._with(2 * self.options[self.counted]), self._joined(parts)

    @property
    def _is_pair_alone(self) -> bool:
        return set(self.shapes) == set(self.pair)

    def _with(self, count: int) -> Bilinear:
        """The family at the same sizes and options, with another number of products."""
        return replace(self, **{self.counted: count})

    def _joined(self, parts: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """X and Y of all parts, one after the other."""
        return {
            name: torch.cat(tensors, dim=self.axis_of(name))
            for name, tensors in zip(self.pair, zip(*parts, strict=True), strict=True)
        }
