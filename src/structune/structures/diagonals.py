"""Families that solve W[i, j] = W[i − 1, j − 1] + Σ_l g_l[i] h_l[j], the form of a displacement equation's entries."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.numerics.scan import running_sums
from structune.structures.ranked import CroppedStructure


@dataclass(frozen=True)
class DiagonalRecursion(CroppedStructure):
    """A family that is built along its diagonals from three edges, in O(R M N); a strip of it as well."""

    @property
    def inner_vectors(self) -> int:
        return self.rank

    @abstractmethod
    def steps(self, start: int, stop: int, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        """Thin factors of the steps from entry to entry of the strip, as `thin_steps` makes them."""

    def entries(self, G: Tensor, H: Tensor) -> Tensor:
        return self.strip(0, self.rows, G, H)

    def strip(self, start: int, stop: int, G: Tensor, H: Tensor) -> Tensor:
        left, right = self.steps(start, stop, *torch.broadcast_tensors(G, H))
        return running_sums(left @ right)

    def pullback(self, grad: Tensor, start: int = 0, **generators: Tensor) -> dict[str, Tensor]:
        """The sums run back up the diagonals, two thin products lead to the factors, autograd from there on."""
        with torch.no_grad():
            turned_grad = running_sums(grad.flip(-2, -1)).flip(-2, -1)
        leaves = {name: generator.detach().requires_grad_() for name, generator in generators.items()}
        with torch.enable_grad():
            left, right = self.steps(start, start + grad.shape[-2], **leaves)
        cotangents = (turned_grad @ right.detach().mT, left.detach().mT @ turned_grad)
        gradients = torch.autograd.grad((left, right), tuple(leaves.values()), cotangents)
        return dict(zip(leaves, gradients, strict=True))


def thin_steps(
    G: Tensor, H: Tensor, first_row: Tensor, first_column: Tensor, last_column: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors (…, M, R + 2) and (…, R + 2, N) whose product has these `running_sums`: Σ_l g_l h_lᵀ and W's edges.

    Args:
        G: (…, R, M); the first number of each row is not used.
        H: (…, R, N); the first number of each row is not used.
        first_row: (…, N).
        first_column: (…, M).
        last_column: (…, M), the numbers at which the recursion arrives.
    """
    turns = pad(first_column[..., 1:], (1, 0)) - pad(last_column, (2, 0))[..., : G.shape[-1]]
    top, left = (pad(torch.ones_like(v[..., :1, :1]), (0, v.shape[-1] - 1)) for v in (G, H))
    down = torch.cat((pad(G[..., 1:], (1, 0)), top, turns.unsqueeze(-2)), dim=-2)
    across = torch.cat((pad(H[..., 1:], (1, 0)), first_row.unsqueeze(-2), left), dim=-2)
    return down.mT, across
