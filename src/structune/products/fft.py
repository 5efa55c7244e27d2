"""`fft`: real transforms, one small product per frequency, and a transform back.

A grid of convolutions needs Q forward and P inverse transforms, not P·Q. Families that are chains of two convolutions
(Toeplitz-like, Hankel-like) pass through P·Q·R intermediate vectors.

Shapes: T tokens, B independent groups, P×Q grid within a group, M×N blocks, K kernel length, L transform length,
F = L/2 + 1 frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from structune.products.precision import working_dtype
from structune.structures import Convolution, Structure


def supports(structure: Structure) -> bool:
    """Whether the family overrides `convolutions`."""
    return type(structure).convolutions is not Structure.convolutions


def multiply(structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y[t, p] = Σ_q W[p, q] x[t, q] through the family's convolutions. Returns (T, P, M) in x's dtype."""
    chain = structure.convolutions(**generators)
    if len(chain) == 1:
        kernel_1PQK = chain[0].kernel.unsqueeze(0)
        return convolve(replace(chain[0], kernel=kernel_1PQK), x_TQN.unsqueeze(1)).squeeze(1)
    inner, outer = chain
    P, Q, R, _ = inner.kernel.shape
    inner_kernel_QPK = inner.kernel.permute(1, 0, 2, 3).reshape(Q, P * R, 1, -1)
    z_TQPn = convolve(replace(inner, kernel=inner_kernel_QPK), x_TQN.unsqueeze(2))
    z_TPQn = z_TQPn.reshape(-1, Q, P, R, inner.rows).transpose(1, 2).flatten(2, 3)
    outer_kernel_PQK = outer.kernel.reshape(P, 1, Q * R, -1)
    return convolve(replace(outer, kernel=outer_kernel_PQK), z_TPQn).squeeze(2)


def convolve(convolution: Convolution, x_TBQN: Tensor) -> Tensor:
    """y[t, b, p] = Σ_q kernel[b, p, q] ∗ x[t, b, q] with kernels (B, P, Q, K): (T, B, P, M) in x's dtype."""
    period, reach = convolution.period, max(convolution.offset + convolution.rows, convolution.cols)
    if period is not None and (fast_length(period) != period or reach > period):
        convolution = convolution.unrolled()
    y: Tensor = _Convolve.apply(x_TBQN, convolution.kernel, Transform.of(convolution))  # type: ignore[no-untyped-call]
    return y


@dataclass(frozen=True)
class Transform:
    """A convolution's sizes, and the length L of the transform that carries it out."""

    length: int
    rows: int
    cols: int
    offset: int
    kernel_length: int
    reverse: bool

    @classmethod
    def of(cls, c: Convolution) -> Transform:
        """The period, or a fast length at which outputs offset … offset + M − 1 do not meet what wraps around."""
        kernel_length = c.kernel.shape[-1]
        needed = max(c.offset + c.rows, kernel_length + c.cols - 1 - c.offset, c.cols, kernel_length)
        return cls(c.period or fast_length(needed), c.rows, c.cols, c.offset, kernel_length, c.reverse)


@cache
def fast_length(n: int) -> int:
    """The smallest length of at least n whose only prime factors are 2, 3 and 5."""
    while True:
        m = n
        for prime in (2, 3, 5):
            while m % prime == 0:
                m //= prime
        if m == 1:
            return n
        n += 1


class _Convolve(torch.autograd.Function):
    """The trilinear form ⟨g, kernel ∗ x⟩; saves x and the kernel as they are, transforms anew in backward.

    With X, K, G the transforms of x, kernel and output gradient, per frequency: Y = Σ_q K X, X̄ = Σ_p K* G and
    K̄ = Σ_t X* G. The backward pass is made of differentiable operations, so double backward follows.
    """

    @staticmethod
    def forward(ctx: Any, x_TBQN: Tensor, kernel_BPQK: Tensor, sizes: Transform) -> Tensor:
        ctx.save_for_backward(x_TBQN, kernel_BPQK)
        ctx.sizes = sizes
        dtype = working_dtype(x_TBQN, kernel_BPQK)
        X_FBTQ, K_FBPQ = _input_spectrum(x_TBQN, sizes, dtype), _kernel_spectrum(kernel_BPQK, sizes, dtype)
        y_TBPL = _inverse(X_FBTQ @ K_FBPQ.mT, sizes).transpose(0, 1)
        return y_TBPL[..., sizes.offset : sizes.offset + sizes.rows].to(x_TBQN.dtype)

    @staticmethod
    def backward(ctx: Any, grad_TBPM: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_TBQN, kernel_BPQK = ctx.saved_tensors
        sizes: Transform = ctx.sizes
        dtype = working_dtype(x_TBQN, kernel_BPQK)
        G_FBTP = _output_spectrum(grad_TBPM, sizes, dtype)
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            K_FBPQ = _kernel_spectrum(kernel_BPQK, sizes, dtype)
            grad_x = _inverse(G_FBTP @ K_FBPQ.conj(), sizes).transpose(0, 1)[..., : sizes.cols]
            grad_x = (grad_x.flip(-1) if sizes.reverse else grad_x).to(x_TBQN.dtype)
        if ctx.needs_input_grad[1]:
            X_FBTQ = _input_spectrum(x_TBQN, sizes, dtype)
            grad_kernel = _inverse(G_FBTP.mT @ X_FBTQ.conj(), sizes)
            grad_kernel = grad_kernel[..., : sizes.kernel_length].to(kernel_BPQK.dtype)
        return grad_x, grad_kernel, None


def _input_spectrum(x_TBQN: Tensor, sizes: Transform, dtype: torch.dtype) -> Tensor:
    x = x_TBQN.flip(-1) if sizes.reverse else x_TBQN
    return _frequency_first(torch.fft.rfft(x.to(dtype), n=sizes.length).transpose(0, 1))


def _kernel_spectrum(kernel_BPQK: Tensor, sizes: Transform, dtype: torch.dtype) -> Tensor:
    return _frequency_first(torch.fft.rfft(kernel_BPQK.to(dtype), n=sizes.length))


def _output_spectrum(grad_TBPM: Tensor, sizes: Transform, dtype: torch.dtype) -> Tensor:
    padded = torch.nn.functional.pad(grad_TBPM.to(dtype), (sizes.offset, 0))
    return _frequency_first(torch.fft.rfft(padded, n=sizes.length).transpose(0, 1))


def _frequency_first(spectrum: Tensor) -> Tensor:
    """(…, F) to (F, …), laid out so that the products per frequency are plain batched GEMMs."""
    return spectrum.movedim(-1, 0).contiguous()


def _inverse(spectrum: Tensor, sizes: Transform) -> Tensor:
    """(F, …) back to (…, L)."""
    return torch.fft.irfft(spectrum.movedim(0, -1), n=sizes.length)
