"""Matrices that one can check by eye, and the families' own formulas."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.structures import shift as shift_file
from structune.structures.families.circulant import first_column
from structune.structures.shift import krylov_diagonals, shift
from structune.testing import make_structure, sample_generators, sample_inputs
from structune.testing.oracles import krylov, shift_matrix


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("family", "generators", "expected"),
    [
        ("low_rank", {"G": [[1, 0], [2, 1]], "H": [[1, 2, 3], [0, 1, 0]]}, [[1, 2, 3], [2, 5, 6]]),
        ("circulant", {"c": [1, 2, 3]}, [[1, 3, 2], [2, 1, 3], [3, 2, 1]]),
        ("circulant", {"c": [1, 2, 3]}, [[1, 3, 2], [2, 1, 3]]),
        ("circulant", {"c": [1, 2, 3]}, [[1, 3], [2, 1], [3, 2]]),
        ("toeplitz", {"t": [1, 2, 3, 4]}, [[3, 2, 1], [4, 3, 2]]),
        ("hankel", {"h": [1, 2, 3, 4]}, [[1, 2, 3], [2, 3, 4]]),
        ("vandermonde", {"v": [2, 3]}, [[1, 2, 4], [1, 3, 9]]),
        ("vandermonde", {"v": [0, -1]}, [[1, 0, 0], [1, -1, 1]]),
        ("cauchy", {"u": [2, 3], "v": [0, 1]}, [[1 / 2, 1], [1 / 3, 1 / 2]]),
        # K(Z_1, g) = [[1, 2], [2, 1]], K(Z_−1, h) = [[3, −4], [4, 3]]
        ("toeplitz_like", {"G": [[1, 2]], "H": [[3, 4]]}, [[11, 2], [10, -5]]),
        # g_0[(i + j + 1 − k) mod 2] h_0[k] for k ≤ j: w_00 = g_1 h_0, w_01 = g_0 h_0 + g_1 h_1, …
        ("hankel_like", {"G": [[1, 2]], "H": [[3, 4]]}, [[6, 11], [3, 10]]),
        # diag(g) [[1, 2], [1, 3]] [[3, 0], [4, 3]]
        ("vandermonde_like", {"v": [2, 3], "G": [[1, 2]], "H": [[3, 4]]}, [[11, 6], [30, 18]]),
        ("cauchy_like", {"u": [2, 3], "v": [0, 1], "G": [[1, 2]], "H": [[3, 4]]}, [[3 / 2, 4], [2, 4]]),
    ],
)
def test_by_eye(family: str, generators: dict[str, list[float]], expected: list[list[float]]) -> None:
    rank = len(generators["H"]) if "H" in generators else 1
    structure = make_structure(family, len(expected), len(expected[0]), rank=rank)
    dense = structure.dense(**{name: torch.tensor(value, dtype=torch.float64) for name, value in generators.items()})
    assert dense.tolist() == [pytest.approx(row, abs=1e-14) for row in expected]


@pytest.mark.parametrize(
    ("family", "options", "generators", "expected"),
    [
        ("kronecker", {}, {"A": [[[1, 2]]], "B": [[[1, 3], [2, 4]]]}, [[1, 3, 2, 6], [2, 4, 4, 8]]),
        ("kronecker", {"left_cols": 2}, {"A": [[[1, 2]]], "B": [[[1, 3], [2, 4]]]}, [[1, 3, 2], [2, 4, 4]]),
        # (1 2) ⊗ (1 3) + (1 0) ⊗ (0 1)
        ("kronecker", {"terms": 2}, {"A": [[[1, 2]], [[1, 0]]], "B": [[[1, 3]], [[0, 1]]]}, [[1, 4, 2, 6]]),
        ("block_diagonal", {}, {"B": [[[1, 2]], [[3, 4]]]}, [[1, 2, 0, 0], [0, 0, 3, 4]]),
        ("block_diagonal", {"num_blocks": 2}, {"B": [[[1, 2]], [[3, 4]]]}, [[1, 0, 0], [0, 3, 4]]),
        (
            "monarch",
            {"num_blocks": 2, "rank": 1},
            {"L": [[[[1], [2]], [[3], [4]]]], "R": [[[[5, 6]], [[7, 8]]]]},
            [[5, 6, 0, 0], [0, 0, 21, 24], [10, 12, 0, 0], [0, 0, 28, 32]],
        ),
        # all four numbers in the middle, R = (1 0), (0 1), (2 0), (0 2): 0 and 2 go to the first block of L, 1 and 3
        # to the second
        (
            "monarch",
            {"num_blocks": 2, "rank": 2},
            {"L": [[[[1, 10]], [[1, 10]]]], "R": [[[[1, 0], [0, 1]], [[2, 0], [0, 2]]]]},
            [[1, 0, 20, 0], [0, 1, 0, 20]],
        ),
        ("circulant_diagonal", {}, {"d0": [1, 2], "c1": [1, 3], "d1": [1, 10]}, [[1, 6], [30, 20]]),
        ("circulant_diagonal", {}, {"d0": [1, 2], "c1": [1, 3], "d1": [10]}, [[10, 60]]),
        # | 1 3 | | 1   | | 0 1 |   | 6 1 |
        # | 3 1 | |   2 | | 1 0 | = | 2 3 |
        (
            "circulant_diagonal",
            {"circulants": 2},
            {"d0": [1, 1], "c1": [0, 1], "d1": [1, 2], "c2": [1, 3], "d2": [1, 1]},
            [[6, 1], [2, 3]],
        ),
    ],
)
def test_of_factors_by_eye(
    family: str, options: dict[str, int], generators: dict[str, list[float]], expected: list[list[float]]
) -> None:
    structure = structures.get(family)(len(expected), len(expected[0]), **options)
    dense = structure.dense(**{name: torch.tensor(value, dtype=torch.float64) for name, value in generators.items()})
    assert dense.tolist() == [pytest.approx(row, abs=1e-14) for row in expected]


def test_like_families_solve_their_equations() -> None:
    """A W − W B is the matrix Gᵀ H itself, or 2 Gᵀ H read backwards, not only one of that rank."""
    G, H = (sample_inputs(3, 12, seed=k) for k in (0, 1))
    for name, expected in (("hankel_like", G.T @ H), ("toeplitz_like", 2 * G.T @ H.flip(-1))):
        structure = make_structure(name, 12, 12, rank=3)
        A, B = structure.displacement() or pytest.fail("square")
        W = structure.dense(G=G, H=H)
        torch.testing.assert_close(A @ W - W @ B, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("family", "rank"),
    [
        *((name, 3) for name in ("low_rank", "toeplitz_like", "hankel_like", "vandermonde_like", "cauchy_like")),
        *((name, 2) for name in ("toeplitz", "hankel")),
        *((name, 1) for name in ("vandermonde", "cauchy")),
        ("circulant", 0),
    ],
)
def test_displacement_rank_is_reached(family: str, rank: int) -> None:
    """TR2024-157, Table 1, last column: for random numbers the bound is the rank."""
    structure = make_structure(family, 12, 12, rank=3)
    generators = sample_generators(structure)
    A, B = structure.displacement(**generators) or pytest.fail("square")
    W = structure.dense(**generators)
    assert structure.displacement_rank == rank
    assert int(torch.linalg.matrix_rank(A @ W - W @ B, atol=1e-10)) == rank


def test_the_papers_circulant_pair_has_full_rank() -> None:
    """Table 1 prints B = I for circulant matrices; (Z_1, Z_1) is meant."""
    structure = make_structure("circulant", 12, 12)
    W = structure.dense(**sample_generators(structure))
    assert int(torch.linalg.matrix_rank(shift(12, 1.0) @ W - W)) == 11  # constant vectors alone are mapped to zero


@pytest.mark.parametrize("name", structures.names())
def test_no_displacement_without_a_square(name: str) -> None:
    structure = make_structure(name, 3, 4)
    assert structure.displacement(**sample_generators(structure)) is None


@pytest.mark.parametrize("name", ["vandermonde", "cauchy", "vandermonde_like", "cauchy_like"])
def test_displacement_needs_the_nodes(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: .*displacement\(\*\*generators\)"):
        make_structure(name, 4, 4).displacement()


@pytest.mark.parametrize("name", ["low_rank", "circulant", "toeplitz", "hankel", "toeplitz_like", "hankel_like"])
def test_displacement_without_generators(name: str) -> None:
    A, B = make_structure(name, 4, 4).displacement() or pytest.fail("square")
    assert A.shape == B.shape == (4, 4)
    assert A.dtype == B.dtype == torch.float64


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("f", [1.0, -1.0, 0.0])
def test_shift_and_its_krylov_matrix(n: int, f: float) -> None:
    v = sample_inputs(n)
    assert shift(n, f).tolist() == shift_matrix(n, f).tolist()
    diagonals = krylov_diagonals(v, f)
    matrix = [[float(diagonals[i - j + n - 1]) for j in range(n)] for i in range(n)]
    assert matrix == krylov(shift_matrix(n, f), v.numpy()).tolist()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(shift_file)
    assert result.attempted >= 1
    assert result.failed == 0


def test_first_column_of_a_first_row() -> None:
    """C3A's circulants are written by their first row, rotated right."""
    row = sample_inputs(3, 5)
    W = make_structure("circulant", 5, 5).dense(c=first_column(row))
    assert torch.equal(W[:, 0, :], row)
    assert torch.equal(W[:, 1, :], row.roll(1, -1))
    assert torch.equal(first_column(first_column(row)), row)


def test_vandermonde_nodes_may_be_zero() -> None:
    """0⁰ = 1, and first and second derivatives at a node of zero are finite: those of 1, v, v², v³."""
    v = _numbers(0.0, 0.5).requires_grad_()
    W = make_structure("vandermonde", 2, 4).dense(v=v)
    (first,) = torch.autograd.grad(W.sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), v)
    assert first.tolist() == pytest.approx([1.0, 1 + 2 * 0.5 + 3 * 0.25])
    assert second.tolist() == pytest.approx([2.0, 2 + 6 * 0.5])


def test_hilbert_matrix() -> None:
    """Cauchy blocks at raw zero are 1 / (i − j − 1/2)."""
    structure = make_structure("cauchy", 4, 3)
    W = structure.dense(**structure.from_raw(u=torch.zeros(4), v=torch.zeros(3)))
    assert W.tolist() == [[pytest.approx(1 / (i - j - 0.5)) for j in range(3)] for i in range(4)]
    assert math.isclose(float(W[0, 0]), -2.0)
