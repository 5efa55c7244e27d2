"""From raw numbers to generators: valid whatever the numbers, and of the same scale in every family."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing import make_structure, sample_inputs


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
    """Entries stay finite, and bounded by what enters linearly: nodes never leave their range."""
    structure = make_structure(name, 5, 7)
    W = structure.dense(**structure.from_raw(**_raw(structure, value)))
    assert W.isfinite().all()
    assert W.abs().max() <= max(4.0, 100 * value * value, 100 * abs(value))


@pytest.mark.parametrize("name", structures.names())
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("size", [(4, 4), (48, 48), (192, 64)])
def test_raw_numbers_of_order_one_give_entries_of_order_one(name: str, size: tuple[int, int], rank: int) -> None:
    """Root mean square of W for uniform raw numbers; least for Vandermonde and Cauchy forms, whose entries decay."""
    structure = make_structure(name, *size, rank=rank)
    W = structure.dense(**structure.from_raw(**_raw(structure)))
    assert 0.04 < W.square().mean().sqrt() < 2


@pytest.mark.parametrize("name", structures.names())
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("size", [(4, 4), (48, 48), (192, 64)])
def test_a_step_moves_entries_by_about_as_much(name: str, size: tuple[int, int], rank: int) -> None:
    """AdamW's first step moves every raw number by ± lr: the root mean square change of an entry is about lr."""
    structure = make_structure(name, *size, rank=rank)
    raw = _raw(structure)
    step = {key: sample_inputs(*value.shape, seed=5).sign() * 1e-4 for key, value in raw.items()}
    after, before = (
        structure.dense(**structure.from_raw(**{key: raw[key] + sign * step[key] for key in raw})) for sign in (1, -1)
    )
    speed = (after - before) / 2e-4
    assert 0.05 < speed.square().mean().sqrt() < 2.5
    assert speed.abs().max() < 20


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


@pytest.mark.parametrize("name", structures.names())
def test_zero_where_linear(name: str) -> None:
    """With the generators that start at zero at zero W is zero, and W is homogeneous in them."""
    structure = make_structure(name, 5, 4)
    raw = _raw(structure)
    zero = {key for key, generator in structure.generators().items() if generator.starts_at_zero}
    zeroed = {key: torch.zeros_like(v) if key in zero else v for key, v in raw.items()}
    doubled = {key: 2 * v if key in zero else v for key, v in raw.items()}
    W, W0, W2 = (structure.dense(**structure.from_raw(**numbers)) for numbers in (raw, zeroed, doubled))
    assert W.any()
    if zero:
        assert not W0.any()
        torch.testing.assert_close(W2, 2 * W)
    assert structure.is_linear == (name in ("circulant", "toeplitz", "hankel"))


def test_steps_that_files_rely_on() -> None:
    """A file holds differences in units of the step: another step would be another ΔW."""
    steps = {name: structures.get(name).raw_step for name in structures.names()}
    assert steps.pop("vandermonde") == 0.1
    assert steps.pop("cauchy") == 10
    assert set(steps.values()) == {1}
