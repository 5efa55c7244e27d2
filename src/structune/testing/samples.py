"""Blocks, generators and inputs to test with."""

from __future__ import annotations

import torch
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing.device import DEVICE


def make_structure(family: str, rows: int, cols: int, **options: int) -> Structure:
    """A block of the family named; own options that are not given are one more than by default, so that they matter.

    Options that the family does not have are left out: tests of all families give those of some.
    """
    kind = structures.get(family)
    own = {name: options.get(name, default + 1) for name, default in kind.own_options().items()}
    return kind(rows, cols, **own)


def sample_raw(
    structure: Structure, *batch: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Raw numbers (*batch, *shape), uniform on (−1, 1), drawn in fp64 and rounded to `dtype`."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: (torch.rand(*batch, *shape, generator=random, dtype=torch.float64) * 2 - 1).to(DEVICE, dtype)
        for name, shape in structure.shapes.items()
    }


def sample_generators(
    structure: Structure, *batch: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Valid generators (*batch, *shape): `sample_raw`, mapped by the family's `from_raw`.

    Worked out in fp64 and rounded to `dtype`, so that every dtype sees the same numbers.
    """
    raw = sample_raw(structure, *batch, seed=seed)
    return {name: value.to(dtype) for name, value in structure.from_raw(**raw).items()}


def sample_inputs(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Standard normal numbers, drawn in fp64 and rounded to `dtype`."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64).to(DEVICE, dtype)
