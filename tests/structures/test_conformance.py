"""All registered families pass the conformance suite."""

from __future__ import annotations

import pytest

from structune import structures
from structune.testing import StructureConformance


@pytest.mark.parametrize("family", structures.names())
class TestEveryFamily(StructureConformance):
    """All families, every algorithm, all sizes and grids."""
