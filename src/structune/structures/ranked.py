"""What families with a rank of their own choosing share: pairs of generators G, H."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from structune.structures.bilinear import Bilinear
from structune.structures.generator import Generator, uniform, zeros


@dataclass(frozen=True)
class RankedStructure(Bilinear):
    """A family with a displacement rank of its own choosing.

    Args:
        rank: R, the number of generator pairs.
    """

    rank: int = 1

    pair: ClassVar[tuple[str, str]] = "G", "H"
    counted: ClassVar[str] = "rank"

    @property
    def displacement_rank(self) -> int:
        return self.rank

    @property
    def fan(self) -> float:
        return self.rank


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
