"""Which numbers are trained, how many, and what the seed decides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from structune.delta import StructuredDelta
from structune.testing import moved
from structune.testing.updates import SOURCES

from .conftest import every_family, every_source, make


@every_family
@every_source
def test_counts(family: str, source: str) -> None:
    delta = make(family, source)
    demand = delta.grid.num_blocks * delta.structure.numel
    size = SOURCES[source].get("pool_size", demand)
    assert delta.pool_size == size
    assert delta.num_trainable == size - math.ceil(SOURCES[source].get("fixed_ratio", 0) * size)
    assert [name for name, _ in delta.named_parameters()] == ["pool"]
    assert delta.num_trainable == sum(p.numel() for p in delta.parameters() if p.requires_grad)


@example(percent=7, size=100)
@example(percent=55, size=100)
@given(percent=st.integers(0, 99), size=st.integers(1, 496))
def test_frozen_share_is_rounded_up_exactly(percent: int, size: int) -> None:
    """⌈ρ P⌉ for the ρ that is written, not for its binary neighbour: 0.07 of 100 is 7."""
    frozen = -(-percent * size // 100)
    if frozen < size:
        delta = StructuredDelta(64, 64, structure="toeplitz", num_splits=4, pool_size=size, fixed_ratio=percent / 100)
        assert delta.num_fixed == frozen
        assert delta.num_trainable == size - frozen


@pytest.mark.parametrize(
    ("kwargs", "count"),
    [
        # HyDRA, TR2024-157: 24 matrices of a 768-wide model, k = 4
        ({"structure": "toeplitz", "num_splits": 4, "pool_size": 384}, 9_216),
        ({"structure": "vandermonde", "num_splits": 4, "pool_size": 384}, 9_216),
        ({"structure": "low_rank", "num_splits": 1, "pool_size": 384}, 9_216),
        ({"structure": "circulant", "num_splits": 4, "pool_size": 384, "fixed_ratio": 0.5}, 4_608),
        # C3A, arXiv 2407.19342, Table 2: one block, and b = 6 blocks per axis, on RoBERTa-base's queries and values
        ({"structure": "circulant", "block_size": 768}, 18_432),
        ({"structure": "circulant", "block_size": 128}, 110_592),
    ],
)
def test_counts_of_the_papers(kwargs: dict[str, Any], count: int) -> None:
    assert sum(StructuredDelta(768, 768, seed=layer, **kwargs).num_trainable for layer in range(24)) == count


@pytest.mark.parametrize(
    ("family", "drawn"), [("circulant", 192), ("vandermonde", 192), ("toeplitz", 383), ("hankel", 383)]
)
def test_numbers_that_one_block_draws(family: str, drawn: int) -> None:
    """TR2024-157 counts 384 for a Toeplitz or Hankel block of 192×192, which has 383 diagonals."""
    delta = StructuredDelta(768, 768, structure=family, num_splits=4, pool_size=384)
    assert delta.structure.numel == drawn
    assert delta.index is not None
    assert delta.index.shape == (16, drawn)


@every_family
@pytest.mark.parametrize("source", ["own, partly frozen", "pooled, partly frozen"])
def test_frozen_numbers_stay(family: str, source: str) -> None:
    """They have no place in `pool`, do not move when all that is trainable does, and matter for the random start."""
    delta = make(family, source, init_weights=False)
    frozen = delta.num_fixed
    assert frozen > 0
    before = delta.numbers()[:frozen].clone()
    assert before.all()
    moved(delta)
    assert torch.equal(delta.numbers()[:frozen], before)
    assert (delta.numbers()[frozen:] != make(family, source, init_weights=False).numbers()[frozen:]).all()
    other = make(family, source, init_weights=False, seed=6)
    moved(other)
    assert not torch.equal(other.numbers()[:frozen], before)


@every_family
def test_seeds(family: str) -> None:
    """The seed and the stream each change map and start; the global random state does not."""
    reference = make(family, "pooled, partly frozen", init_weights=False)
    torch.manual_seed(1234)
    torch.randn(3)
    same = make(family, "pooled, partly frozen", init_weights=False)
    assert torch.equal(same.dense(), reference.dense())
    for changes in ({"seed": 6}, {"seed": -5}, {"stream": 1}, {"seed": 2**63 - 1}, {"seed": -(2**63)}):
        other = make(family, "pooled, partly frozen", init_weights=False, **changes)
        assert reference.index is not None
        assert other.index is not None
        assert not torch.equal(other.index, reference.index)
        assert not torch.equal(other.dense(), reference.dense())


@every_family
@every_source
def test_what_is_given_out_is_not_the_trained_numbers_own_memory(family: str, source: str) -> None:
    for splits in (3, 1) if "pool_size" not in SOURCES[source] else (3,):  # one block may be a view of its numbers
        delta = moved(make(family, source, num_splits=splits))
        before, whole = delta.pool.detach().clone(), delta.dense().detach().clone()
        with torch.no_grad():
            block = delta.as_one_block()
            inside = () if block is None else block[1].values()
            for given in (delta.numbers(), delta.dealt(), delta.dense(), *delta.generators().values(), *inside):
                given.mul_(3.0)  # raises where entries share a place
        assert torch.equal(delta.pool, before)
        assert torch.equal(delta.dense(), whole) and whole.any()
