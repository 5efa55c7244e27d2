"""The real discrete Fourier transform as one or two matrix products: real arithmetic only.

A length L = a·c is cut as j = c j₁ + j₂ and f = f₁ + a f₂ (Cooley and Tukey 1965), so that

    X[f₁ + a f₂] = Σ_{j₂} e^{−2πi j₂ (f₁ + a f₂) / L}  Σ_{j₁} e^{−2πi j₁ f₁ / a} x[c j₁ + j₂] .

The inner sums are products with one real matrix, the outer ones with one matrix for each f₁, twiddle factors included.
Of real numbers only f₁ ≤ a/2 is needed, the others are conjugates. With c = 1 the outer sums fall away.

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

    def forward(self, x_TBCL: Tensor, conjugate: bool) -> Tensor:
        return _transform(x_TBCL, conjugate).permute(4, 1, 0, 3, 2).flatten(3)

    def kernel(self, kernel_BPQL: Tensor, conjugate: bool) -> Tensor:
        return _transform(kernel_BPQL, conjugate).permute(3, 4, 0, 1, 2)

    def apply(self, X: Tensor, K: Tensor) -> Tensor:
        real, imaginary = K
        block = torch.cat((torch.cat((real, -imaginary), -1), torch.cat((imaginary, real), -1)), -2)
        return X @ block.mT

    def apply_transposed(self, G: Tensor, K: Tensor) -> Tensor:
        return self.apply(G, K.mT)

    def reduce(self, G: Tensor, X: Tensor, total: Tensor | None) -> Tensor:
        product = G.mT @ X
        return product if total is None else total.add_(product)

    def inverse(self, Y: Tensor, length: int) -> Tensor:
        return _inverse(Y.unflatten(3, (2, -1)).permute(2, 1, 4, 3, 0), length)

    def inverse_total(self, total: Tensor, length: int) -> Tensor:
        G_real, G_imaginary = total.chunk(2, dim=2)
        (rr, ri), (ir, ii) = G_real.chunk(2, dim=3), G_imaginary.chunk(2, dim=3)
        return _inverse(torch.stack((rr - ii, ri + ir), -1).permute(1, 2, 3, 4, 0), length)


def levels(length: int) -> tuple[int, int]:
    """(a, c) with a·c = length: c = 1 for short transforms, else the a for which a + 2c, the work, is least."""
    if length <= ONE_LEVEL:
        return length, 1
    divisors = [a for a in range(1, length + 1) if length % a == 0]
    best = min(divisors, key=lambda a: a + 2 * length // a)
    return best, length // best


def _transform(x: Tensor, conjugate: bool) -> Tensor:
    """(…, L) to real and imaginary parts (…, 2, F)."""
    a, c = levels(x.shape[-1])
    inner, outer, _ = matrices(x.shape[-1], conjugate, x.dtype, x.device)
    parts = inner @ x.unflatten(-1, (a, c))  # (…, 2A, c)
    if c > 1:
        stacked = parts.unflatten(-2, (2, -1)).movedim(-2, 0)  # (A, …, 2, c)
        flat = stacked.reshape(stacked.shape[0], -1, 2 * c)
        parts = (flat @ outer).view(stacked.shape).movedim(0, -2)
        return parts.flatten(-2)
    return parts.view(*x.shape[:-1], 2, -1)


def _inverse(spectrum: Tensor, length: int) -> Tensor:
    """(…, 2, F) back to (…, L): the transposed transform of the weighted spectrum."""
    _, c = levels(length)
    inner, outer, weights = matrices(length, False, spectrum.dtype, spectrum.device)
    parts = spectrum.unflatten(-1, (-1, c))  # (…, 2, A, c)
    if c > 1:
        stacked = parts.movedim(-2, 0)
        flat = stacked.reshape(stacked.shape[0], -1, 2 * c)
        parts = (flat @ outer.mT).view(stacked.shape).movedim(0, -2)
    return ((inner * weights).mT @ parts.flatten(-3, -2)).flatten(-2)


@lru_cache(maxsize=64)
def matrices(length: int, conjugate: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inner sums (2A, a); outer sums (A, 2c, 2c), to be multiplied from the right; weights (2A, 1) of the inverse.

    A weight is 1/L for frequencies that stand for themselves, f₁ = 0 and a/2, and 2/L for those with a conjugate.
    """
    a, c = levels(length)
    sign = 1.0 if conjugate else -1.0
    f = torch.arange(a // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * ((f[:, None] * torch.arange(a)) % a) / a
    inner = torch.cat((angle.cos(), sign * angle.sin()))
    j, g = torch.arange(c)[:, None], torch.arange(c)
    angle = 2 * math.pi * ((j * (f[:, None, None] + a * g)) % length) / length
    cos, sin = angle.cos(), sign * angle.sin()
    outer = torch.cat((torch.cat((cos, sin), -1), torch.cat((-sin, cos), -1)), -2)
    alone = (f == 0) | (2 * f == a)
    weights = (2 - alone.double()).repeat(2)[:, None] / length
    return inner.to(device, dtype), outer.to(device, dtype), weights.to(device, dtype)
