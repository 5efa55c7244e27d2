"""The real fast Fourier transform of `torch.fft`: spectra are complex, (…, F) with F = L/2 + 1 frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL_PRODUCT = 64
SMALL_TOTAL = 16
"""Blocks of a grid up to which spectra are multiplied, or multiplied and summed, entry by entry as they stand."""

FEW_TOKENS = 32
"""Up to so many tokens a whole grid's products fit into a cache, and one operation makes them."""


class FFT:
    """Spectra stand as `torch.fft.rfft` makes them, frequencies last.

    Small grids multiply them entry by entry. Larger ones multiply frequency by frequency, as batched matrix products
    of spectra that are laid out anew with frequencies first.
    """

    def forward(self, x_TBCL: Tensor, conjugate: bool) -> Tensor:
        X_TBCF = torch.fft.rfft(x_TBCL)
        return X_TBCF.conj_physical_() if conjugate else X_TBCF

    def kernel(self, kernel_BPQL: Tensor, conjugate: bool) -> Tensor:
        return self.forward(kernel_BPQL, conjugate)

    def apply(self, X_TBQF: Tensor, K_BPQF: Tensor) -> Tensor:
        P, Q = K_BPQF.shape[1:3]
        if P * Q > SMALL_PRODUCT:
            return _frequency_last(_frequency_first(X_TBQF) @ K_BPQF.permute(3, 0, 2, 1))
        if P == Q == 1:
            return X_TBQF.mul_(K_BPQF.squeeze(2))
        if X_TBQF.shape[0] <= FEW_TOKENS:
            return (X_TBQF.unsqueeze(2) * K_BPQF).sum(3)
        Y_TBPF = X_TBQF[:, :, :1] * K_BPQF[:, :, 0]
        for q in range(1, Q):
            Y_TBPF.addcmul_(X_TBQF[:, :, q : q + 1], K_BPQF[:, :, q])
        return Y_TBPF

    def apply_transposed(self, G_TBPF: Tensor, K_BPQF: Tensor) -> Tensor:
        return self.apply(G_TBPF, K_BPQF.transpose(1, 2))

    def reduce(self, G_TBPF: Tensor, X_TBQF: Tensor, total: Tensor | None) -> Tensor:
        T, B, P, F = G_TBPF.shape
        Q = X_TBQF.shape[2]
        if P * Q > SMALL_TOTAL:
            product_FBPQ = _frequency_first(G_TBPF).mT @ _frequency_first(X_TBQF)
            return product_FBPQ if total is None else total.add_(product_FBPQ)
        if total is None:
            total = G_TBPF.new_zeros(T, B, P, Q, F)
        total[:T].addcmul_(G_TBPF.unsqueeze(3), X_TBQF.unsqueeze(2))
        return total

    def inverse(self, Y_TBCF: Tensor, length: int) -> Tensor:
        return torch.fft.irfft(Y_TBCF, n=length)

    def inverse_total(self, total: Tensor, length: int) -> Tensor:
        K_BPQF = total.sum(0) if total.dim() == 5 else total.permute(1, 2, 3, 0).contiguous()
        return torch.fft.irfft(K_BPQF, n=length)


def _frequency_first(spectrum_TBCF: Tensor) -> Tensor:
    """(F, B, T, C), laid out so that the products per frequency are plain batched matrix products."""
    return spectrum_TBCF.permute(3, 1, 0, 2).contiguous()


def _frequency_last(spectrum_FBTC: Tensor) -> Tensor:
    """(T, B, C, F), laid out as transforms read it."""
    return spectrum_FBTC.permute(2, 1, 3, 0).contiguous()
