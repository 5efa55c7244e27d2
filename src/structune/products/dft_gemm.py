"""`dft_gemm`: `fft` with the transforms as matrix products, in real arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.products.convolution_chain import Chain, is_chain
from structune.structures import Structure


def supports(structure: Structure) -> bool:
    """Whether the family is made of convolutions."""
    return is_chain(structure)


def multiply(structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y[t, p] = Σ_q W[p, q] x[t, q]. Returns (T, P, M) in x's dtype."""
    return Chain.of(structure, generators).multiply(x_TQN, "dft_gemm")
