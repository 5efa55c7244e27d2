"""Monarch matrices: the published product, their rank, and their forms as thin factors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structune.structures.families import monarch
from structune.structures.families.monarch import Monarch
from structune.testing import sample_generators, sample_inputs


def published(x: Tensor, L: Tensor, R: Tensor) -> Tensor:
    """Dao's and MoRe's product as their papers' code has it, in reshapes: b (r l) → b l r between the two factors."""
    blocks = len(L)
    inner = torch.einsum("kqp,bkp->bkq", R, x.unflatten(-1, (len(R), -1))).flatten(1)
    dealt = inner.unflatten(-1, (-1, blocks)).transpose(1, 2)
    return torch.einsum("lsr,blr->bsl", L, dealt).flatten(1)


@pytest.mark.parametrize("options", [{}, {"rank": 1}, {"rank": 6, "num_blocks": 3}, {"rank": 5, "num_blocks": 6}])
def test_the_published_product(options: dict[str, int]) -> None:
    structure = Monarch(36, 24, **options)
    generators = sample_generators(structure)
    x = sample_inputs(7, 24)
    expected = published(x, generators["L"][0], generators["R"][0])
    torch.testing.assert_close(x @ structure.dense(**generators).T, expected, rtol=0, atol=1e-13)
    found = structure.multiply(x[:, None], **{name: value[None, None] for name, value in generators.items()})
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rank", "share"), [(1, 1 / 4), (2, 2 / 4), (4, 1), (8, 1)])
def test_rank_and_zeros(rank: int, share: float) -> None:
    """Four times the rank of a low-rank matrix of as many numbers; below r = k a share r / k of all entries."""
    structure = Monarch(48, 64, rank=rank)
    W = structure.dense(**sample_generators(structure))
    assert structure.numel == rank * (48 + 64)
    assert torch.linalg.matrix_rank(W) == 4 * rank
    assert torch.count_nonzero(W) == share * W.numel()


def test_daos_own_is_square_and_of_full_rank() -> None:
    structure = Monarch(64, 64, num_blocks=8, rank=8)
    W = structure.dense(**sample_generators(structure))
    assert structure.shapes == {"L": (1, 8, 8, 8), "R": (1, 8, 8, 8)}
    assert torch.linalg.matrix_rank(W) == 64


@pytest.mark.parametrize("thin", [True, False])
@pytest.mark.parametrize("options", [{}, {"rank": 3, "num_blocks": 2, "terms": 2}])
def test_multiplications_are_counted(thin: bool, options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense factors with zeros where they are thin, blocks alone where they are not; the same product."""
    structure = Monarch(48, 80, **options)
    generators, x = sample_generators(structure, 2, 3), sample_inputs(7, 3, 80)
    expected = torch.einsum("pqmn,tqn->tpm", structure.dense(**generators), x)
    monkeypatch.setattr(monarch, "THIN", 64 if thin else 0)
    with FlopCounterMode(display=False) as counter:
        y = structure.multiply(x, **generators)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    assert counter.get_total_flops() == 2 * 7 * structure.multiplications(2, 3)
    per_block = structure.terms * structure.rank * (48 + 80)
    assert structure.multiplications(2, 3) == 2 * 3 * per_block * (structure.blocks if thin else 1)


def test_no_more_multiplications_than_the_matrix_has_entries() -> None:
    """W is built, in the generators' own dtype, where its factors are thicker than it is."""
    structure = Monarch(6, 5, rank=7)
    generators, x = sample_generators(structure, 2, 3), sample_inputs(9, 3, 5)
    assert structure.multiplications(2, 3) == 2 * 3 * 6 * 5
    expected = torch.einsum("pqmn,tqn->tpm", structure.dense(**generators), x)
    torch.testing.assert_close(structure.multiply(x, **generators), expected, rtol=0, atol=1e-13)
    narrow = structure.multiply(x.bfloat16(), **{name: value.float() for name, value in generators.items()})
    rounded = torch.einsum("pqmn,tqn->tpm", structure.dense(**generators).bfloat16(), x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow, rounded, rtol=0, atol=0.05)


@pytest.mark.parametrize("size", [(24, 40), (7, 12), (5, 3)])
def test_as_low_rank(size: tuple[int, int]) -> None:
    structure = Monarch(*size, rank=3, terms=2)
    generators = sample_generators(structure, 2)
    low_rank, factors = structure.as_low_rank(**generators)
    assert low_rank.rank == 2 * structure.blocks * 3
    torch.testing.assert_close(low_rank.dense(**factors), structure.dense(**generators), rtol=0, atol=1e-13)


def test_a_difference_is_twice_as_many_terms() -> None:
    structure = Monarch(20, 30, rank=2)
    now, start = (sample_generators(structure, 2, seed=seed) for seed in (0, 1))
    combined, generators = structure.difference(now, start)
    assert combined == Monarch(20, 30, rank=2, terms=2)
    expected = structure.dense(**now) - structure.dense(**start)
    torch.testing.assert_close(combined.dense(**generators), expected, rtol=0, atol=1e-13)
    same, nothing = structure.difference(start, start)
    assert not same.dense(**nothing).any()


def test_rows_are_looked_up_without_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = Monarch(50, 13, rank=3, terms=2)
    generators = sample_generators(structure, 2, 3)
    W = structure.dense(**generators)
    block_row, row = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 49, 7, 7])
    fails: Any = lambda *args, **kwargs: pytest.fail("the matrix is built")  # noqa: E731
    monkeypatch.setattr(Monarch, "strip", fails)
    torch.testing.assert_close(structure.lookup(block_row, row, **generators), W[block_row, :, row], rtol=0, atol=1e-13)


@pytest.mark.parametrize("options", [{"rank": 1}, {}, {"rank": 6}, {"rank": 9, "num_blocks": 3, "terms": 2}])
@pytest.mark.parametrize("size", [(24, 16), (13, 22)])
def test_the_nearest_is_that_of_every_piece(size: tuple[int, int], options: dict[str, int]) -> None:
    structure = Monarch(*size, **options)
    target = sample_inputs(*size)
    found = structure.dense(**structure.nearest(target))
    k, r = structure.blocks, structure.rank
    columns = [[j for j in range(size[1]) if ((j + 1) * k - 1) // size[1] == piece] for piece in range(k)]
    for block in range(k):
        for piece in range(k):
            numbers = [f for f in range(piece * r, piece * r + r) if f % k == block]
            rows = torch.arange(block, size[0], k)[:, None]
            wanted, there = (matrix[rows, torch.tensor(columns[piece])] for matrix in (target, found))
            left = torch.linalg.svdvals(wanted)[len(numbers) * structure.terms :].square().sum()
            assert float((there - wanted).square().sum()) == pytest.approx(float(left), rel=1e-9, abs=1e-24)


def test_thin_factors_where_they_are_thin() -> None:
    structure = Monarch(24, 20, rank=2)
    generators = sample_generators(structure, 3)
    G, H = structure.thin_factors(**generators) or pytest.fail("8 of 20")
    assert G.shape == (3, 24, 8)
    torch.testing.assert_close(G @ H, structure.dense(**generators), rtol=0, atol=1e-13)
    thick = Monarch(24, 20, rank=6)
    assert thick.thin_factors(**sample_generators(thick)) is None
