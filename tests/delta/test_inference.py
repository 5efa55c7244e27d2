"""What is kept between calls."""

from __future__ import annotations

import pytest
import torch

from structune.delta import StructuredDelta
from structune.testing import normalised_error


@pytest.mark.parametrize("family", ["circulant", "toeplitz", "hankel", "toeplitz_like", "hankel_like"])
@pytest.mark.parametrize("pooled", [False, True])
def test_inference_follows_the_numbers(family: str, pooled: bool) -> None:
    """What is kept between calls without gradients is made anew whenever the numbers, the seed or the dtype change."""
    options = {
        "structure": family,
        "num_splits": 2,
        "algorithm": "fft",
        "pool_size": 13 if pooled else None,
        "scale": 0.5,
    }
    delta = StructuredDelta(10, 14, **options)
    other = StructuredDelta(10, 14, **options, stream=7)
    x = torch.randn(2, 3, 14, generator=torch.Generator().manual_seed(0))

    in_fp64 = 1e-13 if delta.structure.is_linear else 1e-6  # whose generators are multiplied in fp32
    bounds = {torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: in_fp64}

    def check(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y, again = delta(x), delta(x)
        assert torch.equal(y, again)
        expected = x.double() @ delta.dense().detach().double().T
        assert normalised_error(y, expected) < bounds[x.dtype]
        return y

    delta.pool.data.normal_(generator=torch.Generator().manual_seed(1))
    first = check(x)
    delta.pool.data.mul_(3)  # behind autograd's back
    assert not torch.equal(check(x), first)
    with torch.no_grad():
        delta.pool[0] += 1
    check(x)
    delta.pool.data = -delta.pool.data
    check(x)
    delta.load_state_dict(other.state_dict() | {"pool": delta.pool.detach().clone()})  # another start and index map
    check(x)
    check(x.bfloat16())
    check(x.double())
    delta.double()
    check(x.double())
