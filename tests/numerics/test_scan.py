"""Sums along diagonals, against loops."""

from __future__ import annotations

import doctest

import pytest
import torch

from structune.numerics import scan
from structune.numerics.scan import running_sums
from structune.testing import sample_inputs

SIZES = [(1, 1), (1, 4), (4, 1), (2, 2), (3, 5), (5, 3), (9, 2)]


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(scan)
    assert result.attempted >= 1
    assert result.failed == 0


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_running_sums(rows: int, cols: int) -> None:
    """Entry p of a matrix read row by row comes after entry p − (N + 1), wherever the two stand."""
    steps = sample_inputs(2, rows, cols)
    sums, flat = running_sums(steps).flatten(1), steps.flatten(1)
    for p in range(rows * cols):
        torch.testing.assert_close(sums[:, p], flat[:, p % (cols + 1) : p + 1 : cols + 1].sum(-1))


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_adjoint_of_running_sums(rows: int, cols: int) -> None:
    A, B = sample_inputs(2, rows, cols), sample_inputs(2, rows, cols, seed=2)
    adjoint = running_sums(B.flip(-2, -1)).flip(-2, -1)
    torch.testing.assert_close((running_sums(A) * B).sum((-2, -1)), (A * adjoint).sum((-2, -1)))
