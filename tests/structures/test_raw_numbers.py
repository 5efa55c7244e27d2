"""From raw numbers to generators: valid whatever the numbers; scale and start are the conformance suite's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing import make_structure


def _raw(structure: Structure, value: Tensor | float | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Uniform on (−1, 1), or one value everywhere."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1
        if value is None
        else torch.full(shape, float(value), dtype=torch.float64)
        for name, shape in structure.shapes.items()
    }


@pytest.mark.parametrize("name", structures.names())
@given(value=st.floats(-1e6, 1e6))
def test_any_number_is_valid(name: str, value: float) -> None:
    """Entries stay finite, and grow no faster than products of all generators: nodes never leave their range."""
    structure = make_structure(name, 5, 7)
    W = structure.dense(**structure.from_raw(**_raw(structure, value)))
    assert W.isfinite().all()
    degree = max(2, len(structure.shapes))
    assert W.abs().max() <= max(4.0, 100 * abs(value) ** degree, 100 * abs(value))


def test_nodes() -> None:
    """v = sin(π raw / 2); u_i = i + sin(π raw / 2) / 8, v_j = j + 1/2 + sin(π raw / 2) / 8."""
    raw = [-3.0, -0.5, 0.0, 0.25]
    sines = [math.sin(math.pi * r / 2) for r in raw]
    numbers = torch.tensor(raw, dtype=torch.float64)
    for name in ("vandermonde", "vandermonde_like"):
        structure = make_structure(name, 4, 4)
        given = _raw(structure) | {"v": numbers}
        assert structure.from_raw(**given)["v"].tolist() == pytest.approx(sines)
    for name in ("cauchy", "cauchy_like"):
        structure = make_structure(name, 4, 4)
        generators = structure.from_raw(**_raw(structure) | {"u": numbers, "v": numbers})
        assert generators["u"].tolist() == pytest.approx([i + s / 8 for i, s in enumerate(sines)])
        assert generators["v"].tolist() == pytest.approx([j + 0.5 + s / 8 for j, s in enumerate(sines)])


@given(seed=st.integers(0, 1000), magnitude=st.floats(0, 1e4))
def test_cauchy_nodes_keep_their_distance(seed: int, magnitude: float) -> None:
    structure = make_structure("cauchy", 6, 9)
    raw = {name: value * magnitude for name, value in _raw(structure, seed=seed).items()}
    generators = structure.from_raw(**raw)
    assert (generators["u"][:, None] - generators["v"][None, :]).abs().min() >= 0.25 - 1e-12


def test_steps_that_files_rely_on() -> None:
    """A file holds differences in units of the step: another step would be another ΔW."""
    steps = {name: structures.get(name).raw_step for name in structures.names()}
    assert steps.pop("vandermonde") == 0.1
    assert steps.pop("cauchy") == 10
    assert set(steps.values()) == {1}
