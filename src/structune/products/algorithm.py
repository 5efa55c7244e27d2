"""What an algorithm is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from structune.products.precision import working_dtype
from structune.products.update import Update
from structune.structures import Structure
from structune.surroundings import without_autocast


class Prepared(Protocol):
    """What an algorithm can work out once for numbers that stay as they are."""

    @property
    def dtype(self) -> torch.dtype:
        """In which products are worked out."""

    def multiply(self, x_TQN: Tensor) -> Tensor:
        """ΔW x, scaled, not differentiable: (T, Q, N) to (T, P, M)."""


class Algorithm(ABC):
    """A way to multiply a grid of blocks by vectors; all algorithms compute the same function.

    An algorithm defines `supports` and `multiply`; the rest follows, and is overridden where there is a shorter way.
    """

    is_native: ClassVar[bool] = False
    """Whether it is made of PyTorch's own operators, through which all transforms, exporters and tracers go."""

    takes_weight: ClassVar[bool] = False
    """Whether a frozen weight can be part of the product: x (W + ΔW)ᵀ + b in place of x Wᵀ + b + ΔW x."""

    keeps: ClassVar[bool] = False
    """Whether `prepared` gives anything."""

    @abstractmethod
    def supports(self, structure: Structure) -> bool:
        """Whether this algorithm can carry out the family's product."""

    @abstractmethod
    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
        """y[t, p] = Σ_q W[p, q] x[t, q]: x (T, Q, N) and generators (P, Q, …) to (T, P, M) in x's dtype.

        Under autocast it may multiply in autocast's dtype.
        """

    def difference(
        self, structure: Structure, x_TQN: Tensor, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> Tensor:
        """y[t, p] = Σ_q (W[p, q] − W⁰[p, q]) x[t, q], as one block of a family where it is one."""
        merged = structure.difference(generators, start)
        if merged is not None and self.supports(merged[0]):
            return self.multiply(merged[0], x_TQN, merged[1])
        # Most of either product cancels: what is rounded before the difference is taken would be left alone.
        wide = x_TQN.to(working_dtype(x_TQN, *generators.values()))
        with without_autocast(x_TQN.device):
            return self.multiply(structure, wide, generators) - self.multiply(structure, wide, start)

    def grid_product(
        self,
        structure: Structure,
        x: Tensor,
        generators: Mapping[str, Tensor],
        start: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """Of `multiply`, or of `difference` where there is a start, for (…, Q, N) to (…, P, M) in x's dtype."""
        x_TQN = x.reshape(-1, *x.shape[-2:])
        if start is None:
            y_TPM = self.multiply(structure, x_TQN, generators)
        else:
            y_TPM = self.difference(structure, x_TQN, generators, start)
        return y_TPM.to(x.dtype).reshape(*x.shape[:-2], *y_TPM.shape[1:])

    def update(self, update: Update, x: Tensor) -> Tensor:
        """ΔW x: (…, in) to (…, out) in x's dtype, or in autocast's where it is multiplied in that."""
        x_Q = update.grid.split(x)
        y_P = self.grid_product(update.structure, x_Q, update.generators, update.start)
        return update.grid.join(y_P) * update.scale  # memory of its own, without what was cropped

    def prepared(self, update: Update, dtype: torch.dtype) -> Prepared | None:
        """What can be kept while the update's numbers stay, for products worked out in `dtype`; None if nothing can."""
        return None
