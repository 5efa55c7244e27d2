"""The primitive's contract: shapes, errors, dtypes, the choice of algorithm; the conformance suite tests the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from structune import products, structures
from structune.products import ALGORITHMS, block_matmul
from structune.testing import algorithms, make_structure, sample_generators, sample_inputs

P, Q, M, N = 2, 3, 5, 4


@pytest.mark.parametrize("name", structures.names())
def test_by_plain_loops(name: str) -> None:
    structure = make_structure(name, M, N)
    generators, x = sample_generators(structure, P, Q), sample_inputs(6, Q, N)
    W = structure.dense(**generators)
    for algorithm in algorithms(structure):
        y = block_matmul(structure, x, generators, algorithm)
        for t in range(6):
            for p in range(P):
                expected = sum((W[p, q] @ x[t, q] for q in range(Q)), torch.zeros(M, dtype=torch.float64))
                assert y[t, p].tolist() == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("shape", [(Q, N), (0, Q, N), (7, Q, N), (2, 3, Q, N), (2, 0, Q, N)])
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_shapes(shape: tuple[int, ...], algorithm: str) -> None:
    structure = make_structure("low_rank" if algorithm == "factored" else "toeplitz", M, N)
    y = block_matmul(structure, torch.ones(shape), sample_generators(structure, P, Q, dtype=torch.float32), algorithm)
    assert y.shape == (*shape[:-2], P, M)


@pytest.mark.parametrize("shape", [(N,), (Q, N + 1), (Q + 1, N), (7, N, Q), ()])
def test_wrong_x(shape: tuple[int, ...]) -> None:
    structure = make_structure("toeplitz", M, N)
    with pytest.raises(ValueError, match=re.escape(f"x has shape {shape}, (…, {Q}, {N}) expected")):
        block_matmul(structure, torch.ones(shape), sample_generators(structure, P, Q, dtype=torch.float32))


def test_wrong_grids() -> None:
    structure = make_structure("cauchy", M, N)
    u, v = sample_generators(structure, P, Q)["u"], sample_generators(structure, P, Q + 1)["v"]
    for generators in ({"u": u, "v": v}, {"u": u[0], "v": v[0]}, {"u": u[None], "v": u[None, ..., :N]}):
        with pytest.raises(ValueError, match=r"generators must share the leading dimensions \(P, Q\)"):
            block_matmul(structure, sample_inputs(1, Q, N), generators)


def test_wrong_generators() -> None:
    with pytest.raises(ValueError, match=r"toeplitz: generators \['c'\] given, \['t'\] expected"):
        block_matmul(make_structure("toeplitz", M, N), sample_inputs(1, Q, N), {"c": sample_inputs(P, Q, M)})


@pytest.mark.parametrize(("family", "algorithm"), [("cauchy", "fft"), ("toeplitz", "factored"), ("low_rank", "fft")])
def test_algorithm_that_a_family_does_not_have(family: str, algorithm: str) -> None:
    structure = make_structure(family, M, N)
    with pytest.raises(ValueError, match=f"algorithm='{algorithm}' .* {family} blocks: choose .*'auto'.*dense"):
        block_matmul(structure, sample_inputs(1, Q, N), sample_generators(structure, P, Q), algorithm)


def test_unknown_algorithm() -> None:
    structure: Any = make_structure("toeplitz", M, N)
    with pytest.raises(ValueError, match="algorithm='FFT'"):
        products.check("FFT", structure)
