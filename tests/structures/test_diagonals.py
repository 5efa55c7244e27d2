"""Blocks made along their diagonals, against loops."""

from __future__ import annotations

import pytest
import torch

from structune.numerics.scan import running_sums
from structune.structures.diagonals import thin_steps
from structune.structures.families.hankel import antidiagonal_sums, hankel_entries
from structune.structures.families.toeplitz import diagonal_sums, toeplitz_entries
from structune.testing import make_structure, sample_generators, sample_inputs

SIZES = [(1, 1), (1, 4), (4, 1), (2, 2), (3, 5), (5, 3), (9, 2)]


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_steps_from_edges(rows: int, cols: int) -> None:
    """A matrix that is made entry by entry comes back from its edges."""
    G, H = sample_inputs(3, rows), sample_inputs(3, cols, seed=2)
    W = sample_inputs(rows, cols, seed=3)
    for i in range(1, rows):
        for j in range(1, cols):
            W[i, j] = W[i - 1, j - 1] + G[:, i] @ H[:, j]
    down, across = thin_steps(G, H, first_row=W[0], first_column=W[:, 0], last_column=W[:, -1])
    assert down.shape == (rows, 5)
    assert across.shape == (5, cols)
    torch.testing.assert_close(running_sums(down @ across), W)


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_sums_along_diagonals_are_adjoint_to_building(rows: int, cols: int) -> None:
    """⟨build(t), A⟩ = ⟨t, sums(A)⟩ for every t and A."""
    A, t = sample_inputs(2, rows, cols), sample_inputs(2, rows + cols - 1, seed=2)
    for build, sums in ((toeplitz_entries, diagonal_sums), (hankel_entries, antidiagonal_sums)):
        torch.testing.assert_close((build(t, cols) * A).sum((-1, -2)), (t * sums(A)).sum(-1))


def test_pullback_of_ones_counts() -> None:
    """How often each number stands in a 2×3 block, and what slopes add up to."""
    ones = torch.ones(2, 3, dtype=torch.float64)
    t = torch.zeros(4, dtype=torch.float64)
    assert make_structure("toeplitz", 2, 3).pullback(ones, t=t)["t"].tolist() == [1, 2, 2, 1]
    assert make_structure("hankel", 2, 3).pullback(ones[:1], start=1, h=t)["h"].tolist() == [0, 1, 1, 1]
    assert make_structure("circulant", 2, 3).pullback(ones, c=t[:3])["c"].tolist() == [2, 2, 2]
    v = torch.tensor([2.0, 3.0], dtype=torch.float64)
    assert make_structure("vandermonde", 2, 3).pullback(ones, v=v)["v"].tolist() == [1 + 2 * 2, 1 + 2 * 3]


@pytest.mark.parametrize("name", ["toeplitz_like", "hankel_like"])
@pytest.mark.parametrize("size", [(64, 64), (16, 96), (96, 16)])
def test_rounding_does_not_add_up_along_diagonals(name: str, size: tuple[int, int]) -> None:
    """In fp32 the sums are no worse than a few roundings of the largest of them."""
    structure = make_structure(name, *size)
    generators = sample_generators(structure, 8, dtype=torch.float32)
    exact = structure.dense(**{key: value.double() for key, value in generators.items()})
    error = structure.dense(**generators) - exact
    assert error.norm() < 4 * torch.finfo(torch.float32).eps * exact.norm()
