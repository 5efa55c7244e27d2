"""ΔW is what its definition says, in value, product and derivative."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from structune import structures
from structune.delta import StructuredDelta
from structune.testing import by_every_algorithm, moved, normalised_error, sample_inputs

from .conftest import IN, by_hand, every_family, every_source, every_start, make


@every_family
@every_source
@every_start
def test_dense_by_hand(family: str, source: str, start: Any) -> None:
    delta = moved(make(family, source, init_weights=start, dtype=torch.float64, scale=1.7))
    expected = by_hand(delta, start, scale=1.7)
    assert normalised_error(delta.dense().detach(), expected) < 1e-12
    assert expected.any()


@every_family
@every_source
@pytest.mark.parametrize("start", [True, False])
def test_forward_is_the_product_with_dense(family: str, source: str, start: bool) -> None:
    """Every algorithm, result and gradients, with leading dimensions of any number, in blocks and outside of them."""
    delta = moved(make(family, source, init_weights=start, dtype=torch.float64))
    for shape in ((5, IN), (IN,), (2, 3, IN), (0, IN)):
        x = sample_inputs(*shape).requires_grad_()
        expected = x @ delta.dense().T
        expected_gradients = torch.autograd.grad(expected.square().sum(), (x, delta.pool))
        for other in by_every_algorithm(delta):
            y = other(x)
            gradients = torch.autograd.grad(y.square().sum(), (x, other.pool))
            for actual, wanted in zip((y, *gradients), (expected, *expected_gradients), strict=True):
                assert normalised_error(actual.detach(), wanted.detach()) < 1e-12, other.algorithm


@every_family
@every_source
def test_scale(family: str, source: str) -> None:
    unit = moved(make(family, source, dtype=torch.float64))
    half = moved(make(family, source, dtype=torch.float64, scale=-0.5))
    assert torch.equal(half.dense(), -0.5 * unit.dense())
    mean = moved(make(family, source, dtype=torch.float64, scale="1/in_features"))
    assert mean.scale == 1 / IN
    assert normalised_error(mean.dense().detach(), unit.dense().detach() / IN) < 1e-15
    for other in by_every_algorithm(mean):
        assert normalised_error(other(sample_inputs(3, IN)).detach(), unit(sample_inputs(3, IN)).detach() / IN) < 1e-12


@pytest.mark.parametrize(("rows", "size"), [(12, 4), (12, 3), (7, 7), (10, 5)])
def test_a_circulant_is_a_pooled_grid_of_toeplitz_blocks(rows: int, size: int) -> None:
    """TR2024-157, Figure 2: block (p, q) reads c[((p − q)·b + d) mod n] on its diagonal d = −(b − 1) … b − 1."""
    splits = rows // size
    delta = StructuredDelta(rows, rows, structure="toeplitz", num_splits=splits, pool_size=rows, dtype=torch.float64)
    index = [
        [((p - q) * size + d) % rows for d in range(-(size - 1), size)] for p in range(splits) for q in range(splits)
    ]
    assert delta.index is not None
    assert delta.index.shape == (len(index), 2 * size - 1)
    delta.tables = (torch.tensor(index),)
    c = moved(delta).pool.detach()
    circulant = structures.get("circulant")(rows, rows).dense(c=c)
    assert torch.equal(delta.dense().detach(), circulant)
    for other in by_every_algorithm(delta):
        x = sample_inputs(3, rows)
        assert normalised_error(other(x).detach(), x @ circulant.T) < 1e-12


@pytest.mark.parametrize(
    ("family", "source"), [("circulant", "own"), ("cauchy_like", "pooled"), ("low_rank", "pooled")]
)
def test_whole_module_by_differences(family: str, source: str) -> None:
    delta = make(family, source, dtype=torch.float64)
    numbers = moved(delta).pool.detach().clone().requires_grad_()
    x = sample_inputs(2, IN).requires_grad_()
    for other in by_every_algorithm(delta):

        def run(numbers: Tensor, x: Tensor, other: StructuredDelta = other) -> Any:
            return functional_call(other, {"pool": numbers}, (x,))

        torch.autograd.gradcheck(run, (numbers, x))
        torch.autograd.gradgradcheck(run, (numbers, x))
