"""A product of thin matrices is the same whether matrix products may be rounded or not."""

from __future__ import annotations

import pytest
import torch

from structune.numerics import thin
from structune.testing import assert_close, sample_inputs


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_thin_product(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """By plain loops; where matrix products may be rounded, none is taken."""
    G, H = sample_inputs(2, 3, rank, 4), sample_inputs(1, 3, rank, 5, seed=2)
    expected = torch.stack(
        [
            torch.stack([sum(torch.outer(G[p, q, l], H[0, q, l]) for l in range(rank)) for q in range(3)])
            for p in range(2)
        ]
    )
    assert_close({"product": thin.thin_product(G, H)}, {"product": expected}, 1e-14)
    monkeypatch.setattr(thin, "may_round", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "__matmul__", None)
    assert_close({"product": thin.thin_product(G, H)}, {"product": expected}, 1e-14)


def test_where_products_may_be_rounded() -> None:
    assert thin.may_round(torch.device("cuda"))
    assert not thin.may_round(torch.device("cpu"))
