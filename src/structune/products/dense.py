"""`dense`: build the blocks, multiply. The reference for every other algorithm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from structune.products.algorithm import Algorithm
from structune.products.matrix import matrix
from structune.products.update import Update
from structune.structures import Structure


class Dense(Algorithm):
    """One GEMM with the matrix rounded to x's dtype."""

    is_native = True

    def supports(self, structure: Structure) -> bool:
        """Every family has a dense form."""
        return True

    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
        y: Tensor = torch.nn.functional.linear(x_TQN.flatten(1), matrix(structure, generators).to(x_TQN.dtype))
        return y.unflatten(1, (-1, structure.rows))

    def update(self, update: Update, x: Tensor) -> Tensor:
        """With the matrix cropped and scaled before anything is rounded."""
        return torch.nn.functional.linear(x, update.matrix().to(x.dtype))
