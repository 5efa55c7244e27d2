"""Blocks, generators and inputs to test with."""

from __future__ import annotations

import torch
from torch import Tensor

from structune import structures
from structune.structures import RankedStructure, Structure


def make_structure(family: str, rows: int, cols: int, rank: int = 2) -> Structure:
    """A block of the family named; `rank` is used where the family has one."""
    kind = structures.get(family)
    return kind(rows, cols, rank) if issubclass(kind, RankedStructure) else kind(rows, cols)


def sample_generators(
    structure: Structure, *batch: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Valid generators (*batch, *shape): raw numbers uniform on (−1, 1), mapped by the family's `from_raw`.

    Worked out in fp64 and rounded to `dtype`, so that every dtype sees the same numbers.
    """
    random = torch.Generator().manual_seed(seed)
    raw = {
        name: torch.rand(*batch, *shape, generator=random, dtype=torch.float64) * 2 - 1
        for name, shape in structure.shapes.items()
    }
    return {name: value.to(dtype) for name, value in structure.from_raw(**raw).items()}


def sample_inputs(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Standard normal numbers, drawn in fp64 and rounded to `dtype`."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)
