"""PEFT's own C3A, mended in place."""

from __future__ import annotations

from typing import Any

from peft.tuners.c3a.layer import C3ALinear
from torch import Tensor, nn

from structune import products
from structune.structures.families.circulant import Circulant, first_column


class RepairedC3ALinear(C3ALinear):
    """PEFT's C3A layer with the gradient that its forward has, and every adapter on the original x.

    The parameters, their names and the adapter files stay PEFT's own.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) + Σ ΔW x over the active adapters."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.c3a_kernel:
                result = result + self._update(name, x).to(result.dtype)
        return result

    def _update(self, name: str, x: Tensor) -> Tensor:
        kernel = self.c3a_kernel[name]
        size = kernel.shape[-1]
        structure = Circulant(size, size)
        y = products.block_matmul(structure, x.unflatten(-1, (-1, size)), {"c": first_column(kernel)})
        return y.flatten(-2) / x.shape[-1]


def repair_peft_c3a(model: nn.Module) -> int:
    """Replace the layers of a live PEFT C3A model by ones whose gradients are right, in place.

    PEFT's C3A (0.21.2) returns a wrong gradient with respect to its input, so that kernels below another adapted layer
    learn from noise, and chains several active adapters instead of adding them up. State dict, adapter files and the
    forward of a single adapter stay as they were. Call it again after adapters were put on further layers.

    Args:
        model: with C3A layers of PEFT.

    Returns:
        How many layers were repaired.
    """
    broken = [module for module in model.modules() if type(module) is C3ALinear]
    for layer in broken:
        layer.__class__ = RepairedC3ALinear
    return len(broken)
