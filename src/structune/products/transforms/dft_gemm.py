"""The real discrete Fourier transform as one or two matrix products: real arithmetic only.

A length L = a·c is cut as j = c j₁ + j₂ and f = f₁ + a f₂ (Cooley and Tukey 1965), so that

    X[f₁ + a f₂] = Σ_{j₂} e^{−2πi j₂ (f₁ + a f₂) / L}  Σ_{j₁} e^{−2πi j₁ f₁ / a} x[c j₁ + j₂] .

The inner sums are products with one real matrix, the outer ones with one matrix for each f₁, twiddle factors included.
Of real numbers only f₁ ≤ a/2 is needed, the others are conjugates. With c = 1 the outer sums fall away. Negacyclic
convolutions have f + ½ for f, hence f₁ + ½ for f₁, of which (a + 1)/2 are needed.

Spectra are fp32 or fp64: rounded to bf16 they make results 2.2 to 4.4 times as wrong as a dense product in bf16.

Shapes beside those of `Transform`: a inner length, c outer length, A = a/2 + 1, F = A·c frequencies (f₁, f₂).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

ONE_LEVEL = 128
"""The longest transform that is done as one product."""


class DFTGemm:
    """Spectra of tokens are (F, B, T, 2C), real parts before imaginary ones; those of kernels (2, F, B, P, Q).

    The products per frequency are real batched matrix products with [[Re, −Im], [Im, Re]].
    """

    def forward(self, x_TBCL: Tensor, wrap: int) -> Tensor:
        return _transform(x_TBCL, wrap).permute(4, 1, 0, 3, 2).flatten(3)

    def kernel(self, kernel_BPQL: Tensor, wrap: int) -> Tensor:
        return _transform(kernel_BPQL, wrap).permute(3, 4, 0, 1, 2)

    def conjugate(self, X: Tensor) -> Tensor:
        real, imaginary = X.chunk(2, dim=3)
        return torch.cat((real, -imaginary), dim=3)

    def apply(self, X: Tensor, K: Tensor) -> Tensor:
        return X @ _real_form(K).mT

    def apply_adjoint(self, G: Tensor, K: Tensor) -> Tensor:
        return G @ _real_form(K)

    def reduce(self, G: Tensor, X: Tensor, total: Tensor | None) -> Tensor:
        product = G.mT @ X
        return product if total is None else total.add_(product)

    def inverse(self, Y: Tensor, length: int, wrap: int) -> Tensor:
        return _inverse(Y.unflatten(3, (2, -1)).permute(2, 1, 4, 3, 0), length, wrap)

    def inverse_total(self, total: Tensor, length: int, wrap: int) -> Tensor:
        G_real, G_imaginary = total.chunk(2, dim=2)
        (rr, ri), (ir, ii) = G_real.chunk(2, dim=3), G_imaginary.chunk(2, dim=3)
        return _inverse(torch.stack((rr + ii, ir - ri), -1).permute(1, 2, 3, 4, 0), length, wrap)


def _real_form(K: Tensor) -> Tensor:
    """[[Re, −Im], [Im, Re]], (F, B, 2P, 2Q); its transpose is that of the adjoint."""
    real, imaginary = K
    return torch.cat((torch.cat((real, -imaginary), -1), torch.cat((imaginary, real), -1)), -2)


def levels(length: int) -> tuple[int, int]:
    """(a, c) with a·c = length: c = 1 for short transforms, else the a for which a + 2c, the work, is least."""
    if length <= ONE_LEVEL:
        return length, 1
    divisors = [a for a in range(1, length + 1) if length % a == 0]
    best = min(divisors, key=lambda a: a + 2 * length // a)
    return best, length // best


def _transform(x: Tensor, wrap: int) -> Tensor:
    """(…, L) to real and imaginary parts (…, 2, F)."""
    a, c = levels(x.shape[-1])
    inner, outer, _ = matrices(x.shape[-1], wrap, x.dtype, x.device)
    parts = inner @ x.unflatten(-1, (a, c))  # (…, 2A, c)
    if c > 1:
        stacked = parts.unflatten(-2, (2, -1)).movedim(-2, 0)  # (A, …, 2, c)
        flat = stacked.reshape(stacked.shape[0], -1, 2 * c)
        parts = (flat @ outer).view(stacked.shape).movedim(0, -2)
        return parts.flatten(-2)
    return parts.view(*x.shape[:-1], 2, -1)


def _inverse(spectrum: Tensor, length: int, wrap: int) -> Tensor:
    """(…, 2, F) back to (…, L): the transposed transform of the weighted spectrum."""
    _, c = levels(length)
    inner, outer, weights = matrices(length, wrap, spectrum.dtype, spectrum.device)
    parts = spectrum.unflatten(-1, (-1, c))  # (…, 2, A, c)
    if c > 1:
        stacked = parts.movedim(-2, 0)
        flat = stacked.reshape(stacked.shape[0], -1, 2 * c)
        parts = (flat @ outer.mT).view(stacked.shape).movedim(0, -2)
    return ((inner * weights).mT @ parts.flatten(-3, -2)).flatten(-2)


@lru_cache(maxsize=64)
def matrices(length: int, wrap: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inner sums (2A, a); outer sums (A, 2c, 2c), to be multiplied from the right; weights (2A, 1) of the inverse.

    A weight is 1/L for the f₁ that are their own conjugates, and 2/L for those with a conjugate.
    """
    a, c = levels(length)
    half = 0 if wrap == 1 else 1  # of a frequency, which makes all multiples of 1/(2L)
    f = torch.arange((a - half) // 2 + 1)
    conjugate = (a - half - f) % a
    angle = math.pi * (((2 * f[:, None] + half) * torch.arange(a)) % (2 * a)).double() / a
    inner = torch.cat((angle.cos(), -angle.sin()))
    j, g = torch.arange(c)[:, None], torch.arange(c)
    angle = math.pi * ((j * (2 * (f[:, None, None] + a * g) + half)) % (2 * length)).double() / length
    cos, sin = angle.cos(), -angle.sin()
    outer = torch.cat((torch.cat((cos, sin), -1), torch.cat((-sin, cos), -1)), -2)
    weights = (2 - (conjugate == f).double()).repeat(2)[:, None] / length
    return inner.to(device, dtype), outer.to(device, dtype), weights.to(device, dtype)
