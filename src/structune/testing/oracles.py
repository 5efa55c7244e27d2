"""Independent dense forms of all families: SciPy, NumPy and plain loops in fp64, no code shared with the families."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from structune.structures import Structure

Array: TypeAlias = NDArray[np.float64]
Oracle: TypeAlias = Callable[..., Array]

ORACLES: dict[str, Oracle] = {}
"""Every family's oracle by the family's name: (structure, **generators of one block) to W (M, N)."""


def oracle(family: str) -> Callable[[Oracle], Oracle]:
    """Decorator that makes a function the oracle of the family named."""

    def register(function: Oracle) -> Oracle:
        ORACLES[family] = function
        return function

    return register


def oracle_dense(structure: Structure, **generators: Tensor) -> Tensor:
    """W (…, M, N) in fp64 by the family's oracle, block by block; generators (…, *shape) with the same leading sizes.

    Raises:
        LookupError: the family has no oracle.
    """
    if structure.name not in ORACLES:
        raise LookupError(f"structure {structure.name!r} has no oracle: give it one with @oracle({structure.name!r})")
    shapes = structure.shapes
    first = next(iter(shapes))
    batch = generators[first].shape[: generators[first].dim() - len(shapes[first])]
    flat = {
        name: generators[name].detach().double().reshape(-1, *shape).cpu().numpy() for name, shape in shapes.items()
    }
    blocks = [
        ORACLES[structure.name](structure, **{name: values[k] for name, values in flat.items()})
        for k in range(batch.numel())
    ]
    W = torch.from_numpy(np.stack(blocks)).reshape(*batch, structure.rows, structure.cols)
    return W.to(generators[first].device)


def shift_matrix(n: int, f: float) -> Array:
    """Z_f: moves entry j to j + 1, and the last one, times f, to the first."""
    matrix = np.zeros((n, n))
    for j in range(n):
        matrix[(j + 1) % n, j] = f if j == n - 1 else 1.0
    return matrix


def krylov(operator: Array, v: Array) -> Array:
    """[v, Z v, Z² v, …], as many columns as v has entries, one matrix product after the other."""
    columns = [v]
    while len(columns) < len(v):
        columns.append(operator @ columns[-1])
    return np.stack(columns, axis=1)


def from_entries(structure: Structure, entry: Callable[[int, int], float]) -> Array:
    """The M×N matrix whose entries a function of (i, j) gives."""
    return np.array([[entry(i, j) for j in range(structure.cols)] for i in range(structure.rows)], dtype=np.float64)


@oracle("low_rank")
def _low_rank(structure: Structure, G: Array, H: Array) -> Array:
    return from_entries(structure, lambda i, j: sum(G[i, l] * H[l, j] for l in range(len(H))))


@oracle("circulant")
def _circulant(structure: Structure, c: Array) -> Array:
    matrix: Array = scipy.linalg.circulant(c)
    return matrix[: structure.rows, : structure.cols]


@oracle("toeplitz")
def _toeplitz(structure: Structure, t: Array) -> Array:
    corner = structure.cols - 1
    matrix: Array = scipy.linalg.toeplitz(t[corner:], t[corner::-1])
    return matrix


@oracle("hankel")
def _hankel(structure: Structure, h: Array) -> Array:
    corner = structure.rows - 1
    matrix: Array = scipy.linalg.hankel(h[: corner + 1], h[corner:])
    return matrix


@oracle("vandermonde")
def _vandermonde(structure: Structure, v: Array) -> Array:
    return np.vander(v, structure.cols, increasing=True)


@oracle("cauchy")
def _cauchy(structure: Structure, u: Array, v: Array) -> Array:
    return from_entries(structure, lambda i, j: 1.0 / (u[i] - v[j]))


@oracle("toeplitz_like")
def _toeplitz_like(structure: Structure, G: Array, H: Array) -> Array:
    """TR2024-157, equation 5, with explicit Krylov columns."""
    n = max(structure.rows, structure.cols)
    circulant, skew = shift_matrix(n, 1.0), shift_matrix(n, -1.0)
    matrix = sum(krylov(circulant, g) @ krylov(skew, h) for g, h in zip(G, H, strict=True))
    return np.asarray(matrix)[: structure.rows, : structure.cols]


@oracle("hankel_like")
def _hankel_like(structure: Structure, G: Array, H: Array) -> Array:
    """Z_1 W − W Z_0ᵀ = Gᵀ H as n² linear equations: (I ⊗ Z_1 − Z_0 ⊗ I) vec W = vec GᵀH, columns stacked."""
    n = max(structure.rows, structure.cols)
    identity = scipy.sparse.identity(n)
    system = scipy.sparse.kron(identity, shift_matrix(n, 1.0)) - scipy.sparse.kron(shift_matrix(n, 0.0), identity)
    solution: Any = scipy.sparse.linalg.spsolve(system.tocsc(), (G.T @ H).flatten(order="F"))
    matrix: Array = solution.reshape((n, n), order="F")
    return matrix[: structure.rows, : structure.cols]


@oracle("vandermonde_like")
def _vandermonde_like(structure: Structure, v: Array, G: Array, H: Array) -> Array:
    powers, lower = np.vander(v, structure.cols, increasing=True), shift_matrix(structure.cols, 0.0)
    return np.asarray(sum(np.diag(g) @ powers @ krylov(lower, h) for g, h in zip(G, H, strict=True)))


@oracle("cauchy_like")
def _cauchy_like(structure: Structure, u: Array, v: Array, G: Array, H: Array) -> Array:
    return from_entries(structure, lambda i, j: sum(G[l, i] * H[l, j] / (u[i] - v[j]) for l in range(len(G))))


@oracle("kronecker")
def _kronecker(structure: Structure, A: Array, B: Array) -> Array:
    matrix = sum(np.kron(left, right) for left, right in zip(A, B, strict=True))
    return np.asarray(matrix)[: structure.rows, : structure.cols]


@oracle("block_diagonal")
def _block_diagonal(structure: Structure, B: Array) -> Array:
    heights, widths = _even(structure.rows, len(B)), _even(structure.cols, len(B))
    blocks = [block[:height, :width] for block, height, width in zip(B, heights, widths, strict=True)]
    matrix: Array = scipy.linalg.block_diag(*blocks)
    return matrix


def _even(size: int, parts: int) -> list[int]:
    """The lengths of `parts` pieces of `size`, each of which begins as soon as its share is due."""
    begins = [math.floor(Fraction(part * size, parts)) for part in range(parts + 1)]
    return [end - begin for begin, end in pairwise(begins)]


@oracle("monarch")
def _monarch(structure: Structure, L: Array, R: Array) -> Array:
    """Block-diagonal matrices and permutations written out: card f goes to pile f mod k."""
    k, s, r = L.shape[1:]

    def dealt(cards: int) -> Array:
        piles = [[f for f in range(cards) if f % k == pile] for pile in range(k)]
        return np.eye(cards)[[f for pile in piles for f in pile]]

    block_diag = scipy.linalg.block_diag
    widths = _even(structure.cols, k)
    matrix = sum(
        dealt(k * s).T
        @ block_diag(*left)
        @ dealt(k * r)
        @ block_diag(*(block[:, :width] for block, width in zip(right, widths, strict=True)))
        for left, right in zip(L, R, strict=True)
    )
    return np.asarray(matrix)[: structure.rows]


@oracle("circulant_diagonal")
def _circulant_diagonal(structure: Structure, **vectors: Array) -> Array:
    """Factor by factor, the first applied first, with the shorter diagonals filled up with zeros."""
    n = max(structure.rows, structure.cols)
    matrix = np.eye(n)
    for name, vector in vectors.items():
        is_diagonal = name.startswith("d")
        factor = np.diag(np.pad(vector, (0, n - len(vector)))) if is_diagonal else scipy.linalg.circulant(vector)
        matrix = factor @ matrix
    return matrix[: structure.rows, : structure.cols]
