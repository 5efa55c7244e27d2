"""Convolutions in space: ΔW is a structured matrix of filters × what one filter sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from structune.peft.layer import StructuneLayer
from structune.peft.watched import watched


class StructuneConv(StructuneLayer):
    """nn.Conv1d, nn.Conv2d, nn.Conv3d, with any stride, padding, dilation and number of groups.

    The weight (out, in/groups, *kernel) is read as a matrix out × (in/groups · ∏ kernel), whose rows are filters, and
    ΔW is a structured matrix of that size. LoRA's update of a convolution is the family low_rank in the same reading.
    Each group has filters of its own in it, so grouped and depthwise convolutions need nothing else.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    does: ClassVar[str] = "convolve"

    def features(self) -> tuple[int, int]:
        """(filters, numbers of one filter)."""
        filters, *seen = self.get_base_weight().shape
        return filters, math.prod(seen)

    def example(self) -> Tensor:
        """Two inputs, as large as a filter."""
        base: Any = self.get_base_layer()
        weight = self.get_base_weight()
        seen = [dilation * (size - 1) + 1 for size, dilation in zip(base.kernel_size, base.dilation, strict=True)]
        return torch.randn(2, weight.shape[1] * base.groups, *seen, dtype=weight.dtype)

    def _multiplies_quantised(self) -> bool:
        """Never: convolutions of other classes pad, keep caches and the like, however the weight is stored."""
        return False

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW (out, in/groups · ∏ kernel) as (out, in/groups, *kernel)."""
        return delta.view(self.get_base_weight().shape)

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """The convolution of dropout(x) with ΔW, no bias; where calls of ΔW are watched, ΔW times each patch of it."""
        delta = self.delta(adapter_name)
        base: Any = self.get_base_layer()
        dropped: Tensor = self.structune_dropout[adapter_name](x)
        if not watched(delta):
            delta._check_product(dropped)
            result: Tensor = base._conv_forward(dropped, self.get_delta_weight(adapter_name).to(x.dtype), None)
            return result
        channels = -1 - len(base.kernel_size)
        per_group = delta(_patches(base, dropped)).unflatten(-1, (base.groups, -1))  # (…, groups, groups, filters each)
        own = per_group.diagonal(dim1=-3, dim2=-2).mT.flatten(-2)
        return own.movedim(-1, channels)

    def _adapted(self, names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """One convolution with W + ΔW where that is exact, else one for each."""
        weight = self.get_base_weight()
        if not watched(self.base_layer) and all(self._folds(name, x, weight) for name in names):
            return self._with_weight(self._effective_weight(), x, *args, **kwargs)
        return super()._adapted(names, x, *args, **kwargs)


def _patches(conv: Any, x: Tensor) -> Tensor:
    """What the filters of each group see: ([batch,] channels, *space) to ([batch,] *positions, groups, numbers)."""
    dims = len(conv.kernel_size)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    windows = pad(x, conv._reversed_padding_repeated_twice, mode=mode).unflatten(-1 - dims, (conv.groups, -1))
    space = windows.dim() - dims
    for k, (size, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)):
        windows = windows.unfold(space + k, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return windows.movedim((space - 2, space - 1), (space - 2 + dims, space - 1 + dims)).flatten(space - 1 + dims)
