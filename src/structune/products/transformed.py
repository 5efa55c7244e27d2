"""`fft` and `dft_gemm`: transforms, one small product per frequency, and a transform back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from structune.products.algorithm import Algorithm
from structune.products.chain import Chain, PreparedChain
from structune.products.update import Update
from structune.structures import Structure


class Transformed(Algorithm):
    """The product of convolutions by one of `structune.products.transforms`, which is also the algorithm's name."""

    keeps = True

    def __init__(self, transform: str) -> None:
        self.transform = transform

    def supports(self, structure: Structure) -> bool:
        """Whether the family is made of convolutions."""
        return structure.has_convolutions

    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
        return Chain.of(structure, generators).multiply(x_TQN, self.transform)

    def prepared(self, update: Update, dtype: torch.dtype) -> PreparedChain | None:
        """The kernels' spectra; none of a difference of two blocks that is no block of convolutions."""
        update = update.as_one_block()
        if update.start is not None or not self.supports(update.structure):
            return None
        return Chain.of(update.structure, update.generators).prepared(self.transform, dtype, update.scale)
