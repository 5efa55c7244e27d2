"""How ΔW starts: at zero with a gradient, or at random."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from structune.numerics import draws
from structune.testing import by_every_algorithm, moved, normalised_error, sample_inputs

from .conftest import IN, OUT, bound_of, by_hand, every_family, every_source, make


@every_family
@every_source
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_op_at_the_start_with_a_gradient(family: str, source: str, dtype: torch.dtype) -> None:
    """ΔW is zero to the last bit, and the first step moves it, along the gradient, downhill."""
    delta = make(family, source, dtype=dtype)
    assert delta.pool.dtype == dtype
    assert not delta.pool.any()
    x = sample_inputs(6, IN, dtype=dtype)
    target = sample_inputs(6, OUT, dtype=dtype, seed=2)
    for other in by_every_algorithm(delta):
        assert torch.count_nonzero(other.dense()) == 0
        y = other(x)
        assert torch.count_nonzero(y) == 0
        loss = (y - target).float().square().sum()
        loss.backward()
        gradient = other.pool.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.norm() > 1e-3
        with torch.no_grad():
            step = 1e-2 / other.structure.raw_step  # the same for the raw numbers of every family
            other.pool.sub_((step / gradient.float().norm() * gradient).to(dtype))
        assert (other(x) - target).float().square().sum() < loss


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
@pytest.mark.parametrize("start", [False, "xavier_uniform", "kaiming_uniform"])
def test_random_starts(family: str, source: str, start: Any) -> None:
    """The papers' form: nothing is subtracted, raw numbers are uniform within the documented bound."""
    delta = make(family, source, init_weights=start)
    bound = bound_of(start)
    assert not delta.centred
    assert not delta.pool.any()
    can_be_there = torch.count_nonzero(moved(make(family, source), size=1.0).dense())
    assert torch.count_nonzero(delta.dense()) > can_be_there / 2 > 10
    numbers = delta.numbers()
    assert 0.5 * bound < numbers.abs().max() < bound
    assert numbers.min() < 0 < numbers.max()


@every_family
def test_what_is_centred(family: str) -> None:
    """A second term is there only where S(θ⁰) is not zero by itself."""
    block = make(family).structure
    assert make(family).centred == (not any(g.starts_at_zero for g in block.generators().values()))
    assert make(family, "pooled").centred == (not block.is_linear)
    assert (make(family).start is None) == block.is_linear


@pytest.mark.parametrize("family", ["low_rank", "toeplitz_like", "hankel_like", "vandermonde_like", "cauchy_like"])
def test_own_start_of_ranked_families(family: str) -> None:
    """G starts at zero, everything else uniform on (−1, 1), in every block."""
    delta = make(family)
    assert delta.start is not None
    per_block = delta.start.view(delta.grid.num_blocks, -1) / draws.ONE
    first = 0
    for name, shape in delta.structure.shapes.items():
        part = per_block[:, first : first + math.prod(shape)]
        first += math.prod(shape)
        if name == "G":
            assert not part.any()
        else:
            assert (part != 0).all()
            assert 0.8 < part.abs().max() <= 1


@every_source
def test_low_rank_blocks_can_start_as_lora_does(source: str) -> None:
    """The same draws, at another size; which one is meant is told by the identity that is saved."""
    narrow, wide = make("low_rank", source, init_weights="lora"), make("low_rank", source)
    assert (narrow.identity.init_weights, wide.identity.init_weights) == ("lora", True)
    assert not narrow.dense().any()
    for name, generator in wide.generators().items():
        drawn = narrow.generators()[name] * math.sqrt(narrow.structure.cols)
        torch.testing.assert_close(drawn, generator, rtol=0, atol=1e-6)
        assert name == "H" or generator.any() == narrow.pooled  # of its own, G starts at zero
    moved(narrow)
    expected = by_hand(narrow, "lora")
    for other in by_every_algorithm(narrow):
        assert normalised_error(other.dense().detach(), expected) < 1e-5, other.algorithm
    for fresh in (make("low_rank", source), make("low_rank", source, init_weights="lora", stream=7)):
        fresh.load_state_dict(narrow.state_dict())
        assert fresh.identity.init_weights == "lora"
        assert torch.equal(fresh.dense(), narrow.dense())


def test_a_pool_that_starts_as_lora_does_is_another_at_a_smaller_scale() -> None:
    """GH is of degree two: numbers c times as large, and steps, too, are ΔW at the scale c²."""
    narrow = make("low_rank", "pooled", init_weights="lora")
    factor = math.sqrt(1 / narrow.structure.cols)
    wide = moved(make("low_rank", "pooled", scale=factor**2))
    with torch.no_grad():
        narrow.pool.copy_(factor * wide.pool)
    assert wide.dense().abs().max() > 0.01
    torch.testing.assert_close(narrow.dense(), wide.dense(), rtol=1e-4, atol=1e-6)


@every_family
def test_small_updates_survive_bf16_inputs(family: str) -> None:
    """S(θ) − S(θ⁰) is taken before rounding to x's dtype: an update of 1e-4 has its own relative accuracy."""
    delta = moved(make(family, "pooled", dtype=torch.float32), size=1e-4)
    x = sample_inputs(20, IN, dtype=torch.bfloat16)
    expected = x.double() @ by_hand(delta, True).T
    for other in by_every_algorithm(delta):
        y = other(x)
        assert y.dtype == torch.bfloat16
        assert normalised_error(y.detach(), expected) < 0.02, other.algorithm
