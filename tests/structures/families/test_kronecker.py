"""Kronecker products: their sizes, what they cost, and what is exact about sums of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structune.structures.families.kronecker import Kronecker
from structune.testing import sample_generators, sample_inputs


def test_it_is_numpys_product() -> None:
    structure = Kronecker(6, 12)
    generators = sample_generators(structure)
    A, B = (generators[name][0].numpy() for name in ("A", "B"))
    assert (A.shape, B.shape) == ((2, 3), (3, 4))
    np.testing.assert_array_equal(structure.dense(**generators).numpy(), np.kron(A, B))


def test_rank_is_the_product_of_ranks() -> None:
    """Full from few numbers: 2 · 24² for 576×576."""
    structure = Kronecker(576, 576)
    assert structure.numel == 1152
    generators = sample_generators(structure)
    assert torch.linalg.matrix_rank(structure.dense(**generators)) == 576
    generators["A"][0, 0] = generators["A"][0, 1]
    assert torch.linalg.matrix_rank(structure.dense(**generators)) == 23 * 24


@pytest.mark.parametrize(
    ("options", "left", "right"),
    [
        ({}, (2, 3), (3, 4)),
        ({"left_rows": 6}, (6, 3), (1, 4)),
        ({"left_rows": 4, "left_cols": 5}, (4, 5), (2, 3)),
        ({"left_rows": 7, "left_cols": 13}, (2, 3), (3, 4)),
        ({"left_rows": 1, "left_cols": 1}, (1, 1), (6, 12)),
    ],
)
def test_sizes_of_the_factors(options: dict[str, int], left: tuple[int, int], right: tuple[int, int]) -> None:
    structure = Kronecker(6, 12, **options)
    assert (structure.left, structure.right) == (left, right)
    assert structure.shapes == {"A": (1, *left), "B": (1, *right)}


@pytest.mark.parametrize("options", [{}, {"left_rows": 2, "left_cols": 12}, {"terms": 3}, {"left_rows": 5}])
def test_multiplications_are_counted(options: dict[str, int]) -> None:
    structure = Kronecker(24, 48, **options)
    generators, x = sample_generators(structure, 2, 3), sample_inputs(7, 3, 48)
    with FlopCounterMode(display=False) as counter:
        structure.multiply(x, **generators)
    assert counter.get_total_flops() == 2 * 7 * structure.multiplications(2, 3)
    assert structure.multiplications(2, 3) < 2 * 3 * 24 * 48 * structure.terms


def test_the_cheaper_side_comes_first() -> None:
    """Neither order is always the cheaper one, and the count is the smaller of both."""
    for options, left_first, right_first in (
        ({"left_rows": 2, "left_cols": 12}, 2 * 4 * (12 + 12), 12 * 12 * (2 + 4)),
        ({"left_rows": 12, "left_cols": 2}, 12 * 24 * (2 + 2), 2 * 2 * (12 + 24)),
    ):
        assert Kronecker(24, 48, **options).multiplications(1, 1) == min(left_first, right_first)


def test_a_difference_does_not_cancel() -> None:
    """Two blocks that differ in the sixth digit: their difference has fp32's own relative accuracy."""
    structure = Kronecker(20, 30, terms=2)
    start = {name: value.float() for name, value in sample_generators(structure).items()}
    moved = {name: (value + 1e-6 * sample_inputs(*value.shape)).float() for name, value in start.items()}
    exact = structure.dense(**_wide(moved)) - structure.dense(**_wide(start))
    combined, generators = structure.difference(moved, start)
    assert combined == Kronecker(20, 30, terms=4)
    assert (combined.dense(**generators) - exact).norm() < 1e-6 * exact.norm()
    subtracted = structure.dense(**moved) - structure.dense(**start)
    assert (subtracted - exact).norm() > 1e-3 * exact.norm()


def _wide(generators: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in generators.items()}


def test_rows_are_looked_up_without_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = Kronecker(50, 12, terms=2)
    generators = sample_generators(structure, 2, 3)
    W = structure.dense(**generators)
    block_row, row = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 49, 7, 7])
    monkeypatch.setattr(Kronecker, "strip", lambda *args, **kwargs: pytest.fail("the matrix is built"))
    torch.testing.assert_close(structure.lookup(block_row, row, **generators), W[block_row, :, row], rtol=0, atol=1e-14)


@pytest.mark.parametrize("terms", [1, 2, 6])
def test_the_nearest_leaves_the_last_singular_values(terms: int) -> None:
    """Of the entries laid out as vec A × vec B, 2·3 × 3·4 of them; a block is its own nearest."""
    structure = Kronecker(6, 12, terms=terms)
    target = sample_inputs(6, 12)
    places = torch.stack([target[3 * i : 3 * i + 3, 4 * j : 4 * j + 4].flatten() for i in range(2) for j in range(3)])
    left = torch.linalg.svdvals(places)[terms:].square().sum()
    generators = structure.nearest(target)
    assert generators is not None
    found = structure.dense(**generators)
    assert float((found - target).square().sum()) == pytest.approx(float(left), rel=1e-9, abs=1e-24)
    again = structure.nearest(found)
    assert again is not None
    torch.testing.assert_close(structure.dense(**again), found, rtol=0, atol=1e-12)
    assert Kronecker(7, 12).nearest(sample_inputs(7, 12)) is None


def test_sums_of_unlike_blocks_are_none() -> None:
    alike, other = Kronecker(6, 12, terms=2), Kronecker(6, 12, left_rows=6)
    terms = [(weight, block, sample_generators(block)) for weight, block in ((2.0, alike), (-1.0, alike))]
    total, generators = Kronecker.sum_of(terms) or pytest.fail("two of a kind")
    assert total == Kronecker(6, 12, terms=4)
    expected = alike.dense(**terms[0][2]) * 2 - alike.dense(**terms[1][2])
    torch.testing.assert_close(total.dense(**generators), expected, rtol=0, atol=1e-13)
    assert Kronecker.sum_of([*terms, (1.0, other, sample_generators(other))]) is None
