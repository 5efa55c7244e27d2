"""Where a grid of convolutions is a product per frequency: how vectors and kernels get there and back.

    X = F x       Y = K X       y = F⁻¹ Y           forward
    G = F g       X̄ = K* G      x̄ = F⁻¹ X̄           input gradient
                  K̄ = Σ_t G X*  k̄ = F⁻¹ K̄           kernel gradient

F is one of `structune.products.transforms`, X its conjugate where inputs are read backwards.
Shapes: T tokens, B independent groups, P×Q grid within a group, M×N blocks, K kernel length, L transform length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.products.geometry import Geometry
from structune.products.transforms import TRANSFORMS, Transform


@dataclass(frozen=True)
class FrequencyDomain:
    """The domain of convolutions of one geometry.

    Args:
        geometry: lengths, and which outputs are kept.
        transform: a name in `TRANSFORMS`.
        dtype: fp32 or fp64, in which everything is worked out.
    """

    geometry: Geometry
    transform: str
    dtype: torch.dtype

    def kernels(self, kernel_BPQK: Tensor) -> Tensor:
        """K, of the kernels rolled so that outputs start at index 0: y_i = Σ_j placed[i ∓ j] x_j."""
        sizes = self.geometry
        placed = pad(kernel_BPQK.to(self.dtype), (0, sizes.length - sizes.kernel_length))
        return self._transform.kernel(roll(placed, -sizes.first, sizes.wrap), sizes.wrap)

    def inputs(self, x_TBQL: Tensor) -> Tensor:
        """X, of inputs padded to L."""
        X = self._transform.forward(x_TBQL, self.geometry.wrap)
        return self._transform.conjugate(X) if self.geometry.reverse else X

    def outputs(self, X: Tensor, K: Tensor) -> Tensor:
        """y (T, B, P, M)."""
        y = self._back(self._transform.apply(X, K))
        return y if self.geometry.rows == self.geometry.length else y[..., : self.geometry.rows]

    def output_gradients(self, grad_TBPL: Tensor) -> Tensor:
        """G, of output gradients padded to L."""
        return self._transform.forward(grad_TBPL, self.geometry.wrap)

    def input_gradients(self, G: Tensor, K: Tensor) -> Tensor:
        """x̄ (T, B, Q, N)."""
        X = self._transform.apply_adjoint(G, K)
        return self._back(self._transform.conjugate(X) if self.geometry.reverse else X)[..., : self.geometry.cols]

    def add_kernel_gradients(self, total: Tensor | None, G: Tensor, X: Tensor) -> Tensor:
        """A running total of K̄, begun where there is none. May overwrite X."""
        return self._transform.reduce(G, X, total)

    def kernel_gradients(self, total: Tensor) -> Tensor:
        """k̄ (B, P, Q, K)."""
        sizes = self.geometry
        placed = self._transform.inverse_total(total, sizes.length, sizes.wrap)
        return roll(placed, sizes.first, sizes.wrap)[..., : sizes.kernel_length].contiguous()

    @property
    def _transform(self) -> Transform:
        return TRANSFORMS[self.transform]

    def _back(self, Y: Tensor) -> Tensor:
        return self._transform.inverse(Y, self.geometry.length, self.geometry.wrap)


def roll(v: Tensor, shift: int, wrap: int) -> Tensor:
    """v (…, L) moved to the right by `shift`; what passes an end comes in at the other, times `wrap` for each time."""
    length = v.shape[-1]
    rolled = v.roll(shift, -1)
    if wrap == 1:
        return rolled
    turns = (torch.arange(length, device=v.device) - shift).div(length, rounding_mode="floor")
    return rolled * (1 - 2 * (turns % 2)).to(v.dtype)
