"""Blocks on the diagonal: none outside, none shared, and a product of each block alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from structune.structures.families.block_diagonal import BlockDiagonal
from structune.testing import sample_generators, sample_inputs


@given(rows=st.integers(1, 40), cols=st.integers(1, 40), blocks=st.integers(1, 9))
def test_every_row_and_column_belongs_to_one_block(rows: int, cols: int, blocks: int) -> None:
    structure = BlockDiagonal(rows, cols, num_blocks=blocks)
    k = min(blocks, rows, cols)
    numbered = torch.arange(1.0, k + 1)[:, None, None].expand(*structure.shapes["B"])
    W = structure.dense(B=numbered)
    for lines in (W, W.T):
        owners = [set(line[line != 0].tolist()) for line in lines]
        assert all(len(owner) == 1 for owner in owners)
        assert [min(owner) for owner in owners] == sorted(min(owner) for owner in owners)
    assert set(W[W != 0].tolist()) == set(range(1, k + 1))


def test_multiplications_are_counted() -> None:
    structure = BlockDiagonal(24, 40, num_blocks=4)
    generators, x = sample_generators(structure, 2, 3), sample_inputs(7, 3, 40)
    with FlopCounterMode(display=False) as counter:
        structure.multiply(x, **generators)
    assert counter.get_total_flops() == 2 * 7 * structure.multiplications(2, 3)
    assert structure.multiplications(2, 3) == 2 * 3 * 24 * 40 // 4


def test_rows_are_looked_up_without_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = BlockDiagonal(50, 13)
    generators = sample_generators(structure, 2, 3)
    W = structure.dense(**generators)
    block_row, row = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 49, 7, 7])
    monkeypatch.setattr(BlockDiagonal, "strip", lambda *args, **kwargs: pytest.fail("the matrix is built"))
    assert torch.equal(structure.lookup(block_row, row, **generators), W[block_row, :, row])
