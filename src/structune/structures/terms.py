"""What families share that add up any number of products, each a matrix of the family by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from structune.structures.bilinear import Bilinear


@dataclass(frozen=True)
class TermsStructure(Bilinear):
    """W = Σ_l F(X_l, Y_l) with F linear in both; X and Y have the terms as their first axis, and X starts at zero.

    Args:
        terms: m, how many products are added up.
    """

    terms: int = 1

    counted: ClassVar[str] = "terms"

    @property
    def fan(self) -> float:
        return self.terms
