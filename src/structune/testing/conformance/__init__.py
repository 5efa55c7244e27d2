"""The conformance suite: what holds for every family, every algorithm, every size and every grid.

Subclass `StructureConformance` with `family` parametrised over the names to test; pytest does the rest. A new algorithm
in `products.ALGORITHMS` is tested for every family that it supports, a new family by every algorithm that supports it.
"""

from __future__ import annotations

from structune.testing.conformance.definition import Definition
from structune.testing.conformance.parts import Parts
from structune.testing.conformance.products import Products


class StructureConformance(Definition, Parts, Products):
    """Every test takes the name of a family, and most a block size (M, N) and a grid (P, Q)."""
