"""ΔW as products see it: which matrix it is, not where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from structune.grid import Grid
from structune.products.matrix import blocks
from structune.structures import Structure


@dataclass(frozen=True)
class Update:
    """ΔW = scale · crop(grid of S(generators) − S(start)), out×in.

    Args:
        structure: the family and size of the blocks.
        generators: (P, Q, *shape), or (stack, P, Q, *shape) where there is no product, only a matrix.
        start: the same shapes, of what is subtracted; None subtracts nothing.
        grid: how blocks make up the matrix.
        scale: factor.
    """

    structure: Structure
    generators: Mapping[str, Tensor]
    start: Mapping[str, Tensor] | None
    grid: Grid
    scale: float

    def as_one_block(self) -> Update:
        """The same, with nothing subtracted where the family has a difference of its own."""
        if self.start is None:
            return self
        merged = self.structure.difference(self.generators, self.start)
        if merged is None:
            return self
        structure, generators = merged
        return replace(self, structure=structure, generators=generators, start=None)

    def matrix(self) -> Tensor:
        """ΔW (out, in), or (stack, out, in), in at least fp32, under autocast too, differentiable.

        It may be the generators' own memory, with entries that share a place.
        """
        update = self.as_one_block()
        found = blocks(update.structure, update.generators)
        if update.start is not None:
            found = found - blocks(update.structure, update.start)
        whole = self.grid.assemble(found)
        return whole if self.scale == 1 else whole * self.scale
