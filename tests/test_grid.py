"""Cutting a matrix into blocks, against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structune.grid import Grid
from structune.testing import sample_inputs


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    out_features, in_features = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    if draw(st.booleans()):
        size = draw(st.integers(1, max(out_features, in_features)))
        return Grid.cut(out_features, in_features, block_size=size, num_splits=None)
    splits = draw(st.integers(1, min(out_features, in_features)))
    return Grid.cut(out_features, in_features, block_size=None, num_splits=splits)


@given(grid=grids())
def test_blocks_cover_the_matrix(grid: Grid) -> None:
    """No block lies outside as a whole."""
    assert (grid.block_rows - 1) * grid.rows < grid.out_features <= grid.block_rows * grid.rows
    assert (grid.block_cols - 1) * grid.cols < grid.in_features <= grid.block_cols * grid.cols
    assert grid.num_blocks == grid.block_rows * grid.block_cols


@given(grid=grids())
def test_assemble(grid: Grid) -> None:
    """Entry (r, c) of the matrix is entry (r mod M, c mod N) of block (r // M, c // N)."""
    blocks = sample_inputs(grid.block_rows, grid.block_cols, grid.rows, grid.cols)
    matrix = grid.assemble(blocks)
    assert matrix.shape == (grid.out_features, grid.in_features)
    for r in range(grid.out_features):
        for c in range(grid.in_features):
            block = blocks[r // grid.rows, c // grid.cols]
            assert matrix[r, c] == block[r % grid.rows, c % grid.cols]


@given(grid=grids(), batch=st.lists(st.integers(0, 3), max_size=2))
def test_split_and_join(grid: Grid, batch: list[int]) -> None:
    """Inputs are padded with zeros, outputs cropped, in the same order."""
    x = sample_inputs(*batch, grid.in_features)
    parts = grid.split(x)
    assert parts.shape == (*batch, grid.block_cols, grid.cols)
    for k in range(grid.block_cols * grid.cols):
        part = parts[..., k // grid.cols, k % grid.cols]
        assert torch.equal(part, x[..., k] if k < grid.in_features else torch.zeros_like(part))
    y = sample_inputs(*batch, grid.block_rows, grid.rows)
    joined = grid.join(y)
    assert joined.shape == (*batch, grid.out_features)
    for k in range(grid.out_features):
        assert torch.equal(joined[..., k], y[..., k // grid.rows, k % grid.rows])


@given(grid=grids())
def test_the_blockwise_product_is_the_matrix_product(grid: Grid) -> None:
    blocks = sample_inputs(grid.block_rows, grid.block_cols, grid.rows, grid.cols)
    x = sample_inputs(4, grid.in_features)
    y = grid.join(torch.einsum("pqmn,tqn->tpm", blocks, grid.split(x)))
    torch.testing.assert_close(y, x @ grid.assemble(blocks).T)


@pytest.mark.parametrize(
    ("features", "cut", "block", "count"),
    [
        ((768, 768), {"block_size": 768}, (768, 768), (1, 1)),
        ((768, 768), {"block_size": 128}, (128, 128), (6, 6)),
        ((3072, 768), {"block_size": 768}, (768, 768), (4, 1)),
        ((768, 3072), {"num_splits": 4}, (192, 768), (4, 4)),
        ((10, 7), {"num_splits": 4}, (3, 2), (4, 4)),
        ((10, 7), {"block_size": 4}, (4, 4), (3, 2)),
        ((96, 16), {"block_size": "gcd"}, (16, 16), (6, 1)),
        ((1280, 320), {"block_size": "gcd"}, (320, 320), (4, 1)),
        ((1, 7), {"block_size": "gcd"}, (1, 1), (1, 7)),
        ((9, 9), {"num_splits": 6}, (2, 2), (5, 5)),  # six blocks of two would leave one empty
    ],
)
def test_cuts(features: tuple[int, int], cut: dict[str, Any], block: tuple[int, int], count: tuple[int, int]) -> None:
    grid = Grid.cut(*features, block_size=cut.get("block_size"), num_splits=cut.get("num_splits"))
    assert (grid.rows, grid.cols) == block
    assert (grid.block_rows, grid.block_cols) == count


@pytest.mark.parametrize(("block_size", "num_splits"), [(None, None), (4, 2)])
def test_exactly_one(block_size: int | None, num_splits: int | None) -> None:
    with pytest.raises(ValueError, match=f"block_size={block_size} and num_splits={num_splits}: give exactly one"):
        Grid.cut(8, 8, block_size=block_size, num_splits=num_splits)


@pytest.mark.parametrize("name", ["block_size", "num_splits"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "4"])
def test_wrong_values(name: str, value: Any) -> None:
    cut: dict[str, Any] = {"block_size": None, "num_splits": None, name: value}
    with pytest.raises(ValueError, match=f"{name}={value!r} must be an integer of at least 1"):
        Grid.cut(8, 8, **cut)


@given(out_features=st.integers(1, 200), in_features=st.integers(1, 200))
def test_gcd_is_the_largest_block_that_divides_both_sizes(out_features: int, in_features: int) -> None:
    dividing = [size for size in range(1, 201) if out_features % size == 0 and in_features % size == 0]
    if max(dividing) == 1 < min(out_features, in_features):
        with pytest.raises(
            ValueError, match=f"a weight of {out_features}×{in_features} has sizes without a common div"
        ):
            Grid.cut(out_features, in_features, block_size="gcd", num_splits=None)
    else:
        grid = Grid.cut(out_features, in_features, block_size="gcd", num_splits=None)
        assert grid.rows == grid.cols == max(dividing)


def test_too_large() -> None:
    with pytest.raises(ValueError, match="block_size=11 is larger than a weight of 10×8: choose at most 10"):
        Grid.cut(10, 8, block_size=11, num_splits=None)
    with pytest.raises(ValueError, match="num_splits=9 cuts a weight of 10×8 finer than its entries: choose at most 8"):
        Grid.cut(10, 8, block_size=None, num_splits=9)
