"""The conformance suite: what holds for every family, every algorithm, every size and every grid.

Subclass `StructureConformance` with `family` parametrised over the names to test; pytest does the rest. A new algorithm
in `products.ALGORITHMS` is tested for every family that it supports, a new family by every algorithm that supports it,
its own product included.
"""

from __future__ import annotations

from structune.testing.conformance.definition import Definition
from structune.testing.conformance.differences import Differences
from structune.testing.conformance.parts import Parts
from structune.testing.conformance.products import Products
from structune.testing.conformance.raw_numbers import RawNumbers
from structune.testing.conformance.updates import Updates


class StructureConformance(Definition, Parts, Differences, RawNumbers, Products, Updates):
    """Every test takes the name of a family, and most a block size (M, N) and a grid (P, Q).

    Sizes that the family refuses are replaced by the next larger ones that it takes. Own options are tried at their
    defaults and above.
    """
