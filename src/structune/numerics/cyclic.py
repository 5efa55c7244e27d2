"""Cyclic convolutions of vectors, differentiable, without their spectra being kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.surroundings import natively


def cyclic_product(a: Tensor, b: Tensor, period: int) -> Tensor:
    """Σ_k a[(i − k) mod period] b[k]: a, b (…, ≤ period), filled up with zeros, to (…, period), in at least fp32.

    By FFT, whose spectra autograd keeps.
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(wide), b.to(wide)
    if a.numel() == 0:  # of which MKL has no transform
        return pad(a, (0, period - a.shape[-1])) * b
    product: Tensor = torch.fft.irfft(torch.fft.rfft(a, period) * torch.fft.rfft(b, period), period)
    return product


def cyclic_convolution(a: Tensor, b: Tensor, period: int) -> Tensor:
    """Σ_l Σ_k a_l[(i − k) mod period] b_l[k]: a, b (…, R, ≤ period), filled up with zeros, to (…, period).

    Worked out by FFT in at least fp32.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    filled = (pad(v.to(dtype), (0, period - v.shape[-1])) for v in (a, b))
    return _cyclic(*filled).sum(dim=-2).to(a.dtype)


def _cyclic(a: Tensor, b: Tensor) -> Tensor:
    """a ∗ b along the last axis, in PyTorch's own operations where that is asked for."""
    product: Tensor = _product(a, b) if natively() else _Convolution.apply(a, b)  # type: ignore[no-untyped-call]
    return product


def _product(a: Tensor, b: Tensor) -> Tensor:
    return cyclic_product(a, b, a.shape[-1])


class _Convolution(torch.autograd.Function):
    """Cyclic convolution along the last axis; keeps its real arguments, where autograd would keep their spectra."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _product(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        return tuple(
            _cyclic(grad, other.flip(-1).roll(1, dims=-1)) if needed else None
            for other, needed in zip((b, a), ctx.needs_input_grad, strict=True)
        )
