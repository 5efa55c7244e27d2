"""Factors near the square root, and pieces of which none is empty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lokr.layer import factorization

from structune.structures.partition import Cut, nearly_square


@pytest.mark.parametrize("size", [1, 2, 6, 12, 768, 1024, 3072, 4096, 5120, 11008, 14336, 28672])
def test_where_there_are_divisors_they_are_lokrs(size: int) -> None:
    left, right = factorization(size)
    assert (nearly_square(size), size // nearly_square(size)) == (left, right)


@given(size=st.integers(1, 5000))
def test_nearly_square(size: int) -> None:
    """One is at most four times the other, and little is cropped; PEFT's LoKr cuts a prime into 1 and itself."""
    left = nearly_square(size)
    right = -(-size // left)
    assert left <= right <= 4 * left
    assert 0 <= left * right - size < left


@given(pieces=st.integers(1, 40), more=st.integers(0, 90))
def test_pieces_follow_one_another(pieces: int, more: int) -> None:
    """Each row is in one piece, in order; lengths differ by one at most; what stands behind shorter ones is zero."""
    cut = Cut(pieces + more, pieces)
    whole = torch.arange(1.0, cut.size + 1).expand(2, -1)
    split = cut.split(whole)
    assert split.shape == (2, pieces, cut.longest)
    lengths = [int(torch.count_nonzero(piece)) for piece in split[0]]
    assert sum(lengths) == cut.size
    assert set(lengths) <= {cut.longest, cut.longest - 1} - {0}
    assert [row for piece, length in zip(split[0].tolist(), lengths, strict=True) for row in piece[:length]] == [
        *range(1, cut.size + 1)
    ]
    assert torch.equal(cut.join(split), whole)
    piece, place = cut.where(torch.arange(cut.size))
    assert torch.equal(split[0, piece, place], whole[0])


@given(pieces=st.integers(1, 9), more=st.integers(0, 20))
def test_joining_is_the_adjoint_of_splitting_but_for_zeros(pieces: int, more: int) -> None:
    """What is behind shorter pieces goes nowhere, and no gradient comes back to it."""
    cut = Cut(pieces + more, pieces)
    split = torch.ones(pieces, cut.longest, requires_grad=True)
    joined = cut.join(split)
    assert joined.tolist() == [1.0] * cut.size
    (reached,) = torch.autograd.grad(joined.sum(), split)
    assert torch.equal(reached, cut.split(torch.ones(cut.size)))
