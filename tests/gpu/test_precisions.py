"""Lower precision by autocast and by TF32: products lose digits, an update does not drown in them."""

from __future__ import annotations

import pytest
import torch

from structune.testing import (
    DEVICE,
    by_every_algorithm,
    dense_by_oracle,
    make_structure,
    moved,
    normalised_error,
    sample_inputs,
    sample_update,
)

from .conftest import adapted, base, every_family, every_source, inputs, pools
from .conftest import moved as moved_model

HALF = (torch.bfloat16, torch.float16)
every_half = pytest.mark.parametrize("half", HALF, ids=["bfloat16", "float16"])

TRIES = 4
"""Of a scale that begins at 2¹⁶, where a gradient of 1 is beyond what fp16 holds."""

TF32 = 5e-3
"""Normalised error of a product whose factors have ten bits."""


@every_family
@every_source
@every_half
def test_autocast(family: str, pool_size: int | None, half: torch.dtype) -> None:
    """The gradient reaches fp32 numbers, scaled where fp16 needs it, and the result is that of fp32 up to rounding."""
    model, x = moved_model(adapted(family, pool_size)), inputs()
    expected = model(x).detach()
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=half == torch.float16 and DEVICE.type == "cuda")
    optimizer = torch.optim.AdamW(pools(model), lr=1e-3)
    before = [pool.detach().clone() for pool in pools(model)]
    for _ in range(TRIES):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=half):
            y = model(x)
            loss = y.float().square().mean()
        assert y.dtype == half
        assert normalised_error(y.detach(), expected) < 0.02
        scaler.scale(loss).backward()
        if all(pool.grad.isfinite().all() for pool in pools(model)):
            break
        scaler.step(optimizer)  # passed over, and the next scale is half as large
        scaler.update()
    scaler.step(optimizer)
    scaler.update()
    for pool, was in zip(pools(model), before, strict=True):
        assert pool.dtype == torch.float32
        assert pool.grad.isfinite().all()
        assert not torch.equal(pool, was)


@every_family
@every_source
@every_half
def test_autocast_starts_as_the_base(family: str, pool_size: int | None, half: torch.dtype) -> None:
    with torch.autocast(DEVICE.type, dtype=half):
        assert torch.equal(adapted(family, pool_size)(inputs()), base()(inputs()))


@every_family
@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("source", ["own", "pooled"])
@pytest.mark.parametrize("size", [0.3, 1e-3])
def test_tf32(family: str, source: str, size: float) -> None:
    """With TF32 allowed, ΔW x has its relative accuracy, for updates that are small beside their start too."""
    delta = moved(sample_update(make_structure(family, 40, 30), source), size)
    x = sample_inputs(64, delta.grid.in_features, dtype=torch.float32)
    expected = x.double() @ dense_by_oracle(delta).T
    for other in by_every_algorithm(delta):
        error = normalised_error(other(x).detach(), expected)
        assert error < TF32, f"{other.algorithm}: {error:.2g}"


@every_family
@pytest.mark.usefixtures("tf32")
@every_source
def test_tf32_starts_as_the_base(family: str, pool_size: int | None) -> None:
    assert torch.equal(adapted(family, pool_size)(inputs()), base()(inputs()))
