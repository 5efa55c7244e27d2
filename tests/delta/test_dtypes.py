"""Dtypes, casts and copies."""

from __future__ import annotations

import copy

import pytest
import torch

from structune.testing import by_every_algorithm, moved, normalised_error, sample_inputs

from .conftest import IN, by_hand, every_family, every_source, make


@every_family
@every_source
@pytest.mark.parametrize("x_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_dtypes(family: str, source: str, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    """The output has x's dtype; blocks are built in fp32 from bf16 numbers; gradients have the parameters' dtype."""
    delta = moved(make(family, source, dtype=dtype))
    assert delta.dense().dtype == torch.float32
    x = sample_inputs(6, IN, dtype=x_dtype)
    expected = x.double() @ by_hand(delta, True).T
    for other in by_every_algorithm(delta):
        y = other(x)
        assert y.dtype == x_dtype
        assert normalised_error(y.detach(), expected) < 3 * max(torch.finfo(x_dtype).eps, 3e-6), other.algorithm
        y.sum().backward()
        assert other.pool.grad is not None
        assert other.pool.grad.dtype == dtype


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
@pytest.mark.parametrize("size", [0.3, 1e-3])
def test_autocast(family: str, source: str, size: float) -> None:
    """Under autocast ΔW is what it is without; products have bf16's relative accuracy, for small updates too."""
    delta = moved(make(family, source), size=size)
    dense = delta.dense().detach()
    x = sample_inputs(20, IN, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(delta.dense(), dense)
        for other in by_every_algorithm(delta):
            y = other(x)
            assert normalised_error(y.detach(), x @ dense.T) < 0.02, other.algorithm
            y.float().square().sum().backward()
            assert other.pool.grad is not None
            assert other.pool.grad.isfinite().all()


@every_family
def test_casting_there_and_back(family: str) -> None:
    """Casts move the trainable numbers alone: start, index and seed are integers."""
    delta = make(family, "pooled, partly frozen", init_weights=False)
    reference = make(family, "pooled, partly frozen", init_weights=False)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        delta.to(dtype)
        assert delta.pool.dtype == dtype
        for name, buffer in delta.named_buffers():
            assert not buffer.is_floating_point()
            assert torch.equal(buffer, reference.get_buffer(name))
    assert torch.equal(delta.dense(), reference.dense())


@every_family
@every_source
def test_deepcopy(family: str, source: str) -> None:
    """Equal, and independent afterwards."""
    delta = moved(make(family, source))
    other = copy.deepcopy(delta)
    assert torch.equal(other.dense(), delta.dense())
    with torch.no_grad():
        other.pool.add_(1)
    assert not torch.equal(other.dense(), delta.dense())
