"""Numbers to start from: golden values, oracles in Python's own integers and floats, and what they are meant to be."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from structune.numerics import draws

WORD = 1 << 64


def position(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape)).view(shape)


def words(seed: int, count: int) -> list[int]:
    """SplitMix64's first outputs, as its authors publish it."""
    outputs = []
    for k in range(1, count + 1):
        z = (seed + k * 0x9E3779B97F4A7C15) % WORD
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        outputs.append(z ^ (z >> 31))
    return outputs


def normal(count: int, seed: int) -> list[int]:
    """Twelve numbers of 16 bits each, added up, in units of 2⁻¹⁷ of a deviation and then of 2⁻²⁴."""
    drawn = words(words(seed, 4)[3], 3 * count)
    sums = [sum((drawn[3 * k + w] >> low) % 2**16 for w in range(3) for low in (0, 16, 32, 48)) for k in range(count)]
    return [(2 * s - 12 * 65535) * 128 for s in sums]


def by_halves(terms: list[float]) -> float:
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms = [terms[k] + terms[half + k] if half + k < len(terms) else terms[k] for k in range(half)]
    return terms[0]


def gram_schmidt(columns: list[list[float]]) -> list[list[float]]:
    columns = [list(column) for column in columns]
    for k, column in enumerate(columns):
        norm = math.sqrt(by_halves([entry * entry for entry in column]))
        columns[k] = [entry / norm for entry in column]
        for later in range(k + 1, len(columns)):
            along = by_halves([a * b for a, b in zip(columns[k], columns[later], strict=True)])
            columns[later] = [b - a * along for a, b in zip(columns[k], columns[later], strict=True)]
    return columns


def test_golden_values() -> None:
    """Adapters on disk depend on these numbers: if they change, `pool.SAMPLER_VERSION` must."""
    assert draws.uniform(position(3), 0).tolist() == [14438051, 10531803, 1698517]
    assert draws.gaussian(position(4), 0).tolist() == [-6224896, 17417472, 16458496, 15780096]
    assert draws.orthogonal(position(2, 3), 0).tolist() == [
        [-4218147, 11802523, 11152697],
        [7161222, 11693862, -9666719],
    ]
    assert draws.identity(position(2, 3), 0).tolist() == [[2**24, 0, 0], [0, 2**24, 0]]
    assert draws.zeros(position(2), 0).tolist() == [0, 0]
    assert draws.ones(position(2), 0).tolist() == [2**24, 2**24]


@pytest.mark.parametrize("seed", [0, 3, 2**63 - 1])
def test_gaussian_in_plain_integers(seed: int) -> None:
    numbers = draws.gaussian(position(7), seed)
    assert numbers.dtype == torch.int32
    assert numbers.tolist() == normal(7, seed)


def test_gaussian_is_normal() -> None:
    values = draws.gaussian(position(20_000), 3).double() / draws.ONE
    assert scipy.stats.kstest(values.numpy(), "norm").pvalue > 0.01
    assert abs(float(values.mean())) < 0.03
    assert abs(float(values.var()) - 1) < 0.04
    assert 3 < values.abs().max() < 6
    uniform = draws.uniform(position(20_000), 3).double()
    assert abs(float(torch.corrcoef(torch.stack((values, uniform)))[0, 1])) < 0.03


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (9, 5), (5, 9)])
def test_orthogonal_in_plain_floats(shape: tuple[int, int]) -> None:
    """The same bits as loops over Python's floats give: all is rounded correctly, and in an order of our own."""
    rows, cols = shape
    entries = [[float(k) + 1 for k in normal(rows * cols, 5)[row * cols : (row + 1) * cols]] for row in range(rows)]
    columns = entries if rows < cols else [list(column) for column in zip(*entries, strict=True)]
    expected = torch.tensor(gram_schmidt(columns), dtype=torch.float64)
    expected = expected if rows < cols else expected.T
    assert torch.equal(draws.orthogonal(position(*shape), 5), (expected * draws.ONE).round().to(torch.int32))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (64, 64), (100, 7), (7, 100), (3, 2, 16, 12)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    """QᵀQ = I, or Q Qᵀ = I, up to the rounding of the entries, for each matrix of a stack; no two are alike."""
    Q = draws.orthogonal(position(*shape), 1).double() / draws.ONE
    gram = Q.mT @ Q if shape[-2] >= shape[-1] else Q @ Q.mT
    eye = torch.eye(gram.shape[-1], dtype=torch.float64).expand_as(gram)
    torch.testing.assert_close(gram, eye, rtol=0, atol=2 * 2**-24 * math.sqrt(max(shape)))
    if len(shape) > 2:
        matrices = Q.flatten(0, -3)
        assert (matrices[0] - matrices[1]).abs().max() > 0.1
    if shape != (1, 1):  # which are 1 or −1
        assert not torch.equal(Q, draws.orthogonal(position(*shape), 2).double() / draws.ONE)


def test_orthogonal_matrices_point_everywhere() -> None:
    """Entries of random orthogonal 8×8 matrices have mean 0 and variance 1/8, every one of them, and either sign."""
    Q = draws.orthogonal(position(4000, 8, 8), 0).double() / draws.ONE
    assert Q.mean(dim=0).abs().max() < 5 * math.sqrt(1 / 8 / 4000)
    assert (Q.square().mean(dim=0) - 1 / 8).abs().max() < 0.02
    signs = torch.linalg.det(Q[:1000]).sign().tolist()
    assert 400 < signs.count(1.0) < 600


def test_numbers_depend_on_where_they_stand_alone() -> None:
    """A part of the positions has the numbers that it has in the whole, in any layout."""
    whole = position(6, 10)
    for draw in (draws.uniform, draws.gaussian):
        assert torch.equal(draw(whole[:, 3:7], 4), draw(whole, 4)[:, 3:7])
    assert torch.equal(draws.orthogonal(position(3, 4, 5)[1:], 4), draws.orthogonal(position(3, 4, 5), 4)[1:])
