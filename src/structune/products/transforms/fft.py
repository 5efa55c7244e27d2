"""The real fast Fourier transform of `torch.fft`: spectra are complex, frequencies last.

Cyclic: F = L/2 + 1 frequencies of a real transform. Negacyclic, L even: F = L/2 frequencies (2k + ½) / L of a complex
transform of half the length, of z_j = (x_j − i x_{j + L/2}) e^{−πi j / L}; the others are their conjugates.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

SMALL_PRODUCT = 64
SMALL_TOTAL = 16
"""Blocks of a grid up to which spectra are multiplied, or multiplied and summed, entry by entry as they stand."""

FEW_TOKENS = 32
"""Up to so many tokens a whole grid's products fit into a cache, and one operation makes them."""


class FFT:
    """Spectra stand as `torch.fft` makes them.

    Small grids multiply them entry by entry. Larger ones multiply frequency by frequency, as batched matrix products
    of spectra that are laid out anew with frequencies first.
    """

    def forward(self, x_TBCL: Tensor, wrap: int) -> Tensor:
        return torch.fft.rfft(x_TBCL) if wrap == 1 else _negacyclic(x_TBCL)

    def kernel(self, kernel_BPQL: Tensor, wrap: int) -> Tensor:
        return self.forward(kernel_BPQL, wrap)

    def conjugate(self, X_TBCF: Tensor) -> Tensor:
        return X_TBCF.conj_physical_()

    def apply(self, X_TBQF: Tensor, K_BPQF: Tensor) -> Tensor:
        P, Q = K_BPQF.shape[1:3]
        if P * Q > SMALL_PRODUCT:
            return _frequency_last(_frequency_first(X_TBQF) @ K_BPQF.permute(3, 0, 2, 1))
        if Q == 1:
            return X_TBQF * K_BPQF.squeeze(2)
        if X_TBQF.shape[0] <= FEW_TOKENS:
            return (X_TBQF.unsqueeze(2) * K_BPQF).sum(3)
        # Input after input, so that no tensor with the axes T, P and Q at once is made.
        Y_TBPF = X_TBQF[:, :, :1] * K_BPQF[:, :, 0]
        for q in range(1, Q):
            Y_TBPF.addcmul_(X_TBQF[:, :, q : q + 1], K_BPQF[:, :, q])
        return Y_TBPF

    def apply_adjoint(self, G_TBPF: Tensor, K_BPQF: Tensor) -> Tensor:
        return self.apply(G_TBPF, K_BPQF.transpose(1, 2).conj_physical())

    def reduce(self, G_TBPF: Tensor, X_TBQF: Tensor, total: Tensor | None) -> Tensor:
        T, B, P, F = G_TBPF.shape
        Q = X_TBQF.shape[2]
        X_TBQF.conj_physical_()
        if P * Q > SMALL_TOTAL:
            product_FBPQ = _frequency_first(G_TBPF).mT @ _frequency_first(X_TBQF)
            return product_FBPQ if total is None else total.add_(product_FBPQ)
        # One total for each token of a chunk; `inverse_total` adds them up. The last chunk may be shorter.
        if total is None:
            total = G_TBPF.new_zeros(T, B, P, Q, F)
        total[:T].addcmul_(G_TBPF.unsqueeze(3), X_TBQF.unsqueeze(2))
        return total

    def inverse(self, Y_TBCF: Tensor, length: int, wrap: int) -> Tensor:
        return torch.fft.irfft(Y_TBCF, n=length) if wrap == 1 else _inverse_negacyclic(Y_TBCF)

    def inverse_total(self, total: Tensor, length: int, wrap: int) -> Tensor:
        # Five axes, tokens first, where spectra were multiplied entry by entry; four, frequencies first, as matrices.
        K_BPQF = total.sum(0) if total.dim() == 5 else total.permute(1, 2, 3, 0).contiguous()
        return self.inverse(K_BPQF, length, wrap)


def _negacyclic(x: Tensor) -> Tensor:
    """(…, L) to (…, L/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.fft.fft(torch.complex(first, -second).mul_(_twiddles(x.shape[-1], x.dtype, x.device)))


def _inverse_negacyclic(spectrum: Tensor) -> Tensor:
    """(…, L/2) back to (…, L)."""
    twiddles = _twiddles(2 * spectrum.shape[-1], spectrum.real.dtype, spectrum.device)
    z = torch.fft.ifft(spectrum).mul_(twiddles.conj_physical())
    return torch.cat((z.real, -z.imag), dim=-1)


@lru_cache(maxsize=64)
def _twiddles(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """e^{−πi j / L} for 0 ≤ j < L/2."""
    angle = torch.arange(length // 2, dtype=torch.float64) * (-math.pi / length)
    return torch.complex(angle.cos().to(dtype), angle.sin().to(dtype)).to(device)


def _frequency_first(spectrum_TBCF: Tensor) -> Tensor:
    """(F, B, T, C), laid out so that the products per frequency are plain batched matrix products."""
    return spectrum_TBCF.permute(3, 1, 0, 2).contiguous()


def _frequency_last(spectrum_FBTC: Tensor) -> Tensor:
    """(T, B, C, F), laid out as transforms read it."""
    return spectrum_FBTC.permute(2, 1, 3, 0).contiguous()
