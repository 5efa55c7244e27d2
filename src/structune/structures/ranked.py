"""What families with a rank of their own choosing share: pairs of generators G, H, and sums over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from structune.structures.base import Structure, Term, unit_scale
from structune.structures.generator import Generator, uniform, zeros


@dataclass(frozen=True)
class RankedStructure(Structure):
    """A family with a displacement rank of its own choosing.

    Args:
        rank: R, the number of generator pairs.
    """

    rank: int = 1

    @property
    def displacement_rank(self) -> int:
        return self.rank

    @property
    def fan(self) -> float:
        """How many products of entries of G and H an entry of W sums, by their size."""
        return self.rank

    def from_raw(self, *args: Any, **raw: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: numbers * scale if name in ("G", "H") else numbers for name, numbers in raw.items()}

    def to_raw(self, *args: Any, **generators: Any) -> dict[str, Tensor]:
        scale = unit_scale(self.fan)
        return {name: values / scale if name in ("G", "H") else values for name, values in generators.items()}


@dataclass(frozen=True)
class CroppedStructure(RankedStructure):
    """A ranked family that is square by nature: G, H (R, n) with n = max(M, N), cropped to M×N."""

    @property
    def order(self) -> int:
        """n = max(M, N), the size of the square matrix that is cropped."""
        return max(self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        return {"G": zeros(self.rank, self.order), "H": uniform(self.rank, self.order)}

    @property
    def fan(self) -> float:
        return self.rank * self.order

    @classmethod
    def sum_of(cls, terms: Sequence[Term]) -> tuple[Structure, dict[str, Tensor]]:
        """All generator pairs of the terms."""
        return pairs_of_all(terms, axes={"G": -2, "H": -2})

    def difference(
        self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> tuple[Structure, dict[str, Tensor]]:
        G, H = telescoped(generators, start)
        return replace(self, rank=2 * self.rank), {"G": torch.cat(G, dim=-2), "H": torch.cat(H, dim=-2)}


def telescoped(
    generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The pairs (G − G⁰, G⁰) and (H, H − H⁰): G H − G⁰ H⁰ = (G − G⁰) H + G⁰ (H − H⁰), for families bilinear in both."""
    G, H, G_start, H_start = generators["G"], generators["H"], start["G"], start["H"]
    return (G - G_start, G_start), (H, H - H_start)


def pairs_of_all(terms: Sequence[Term], axes: Mapping[str, int]) -> tuple[Structure, dict[str, Tensor]]:
    """Σ weight · S(G, H) as a block with the generator pairs of all terms, the weights on G.

    Args:
        terms: of one family that is a sum over its pairs.
        axes: by name the axis of G and H along which the pairs are.
    """
    structure = terms[0][1]
    weighted = [{"G": weight * generators["G"], "H": generators["H"]} for weight, _, generators in terms]
    rank = sum(other.options["rank"] for _, other, _ in terms)
    joined = {name: torch.cat([generators[name] for generators in weighted], dim=axis) for name, axis in axes.items()}
    return replace(cast(RankedStructure, structure), rank=rank), joined
