"""Convolutions in space: ΔW is a structured matrix of filters × what one filter sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

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

    def features(self) -> tuple[int, int]:
        """(filters, numbers of one filter)."""
        filters, *seen = self.get_base_weight().shape
        return filters, math.prod(seen)

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW (out, in/groups · ∏ kernel) as (out, in/groups, *kernel)."""
        return delta.view(self.get_base_weight().shape)

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """The convolution of dropout(x) with ΔW, no bias; where calls of ΔW are watched, ΔW times each patch of it."""
        base, delta = self._plain(), self.delta(adapter_name)
        dropped: Tensor = self.structune_dropout[adapter_name](x)
        if not watched(delta):
            result: Tensor = base._conv_forward(dropped, self.get_delta_weight(adapter_name).to(x.dtype), None)
            return result
        channels = -1 - len(base.kernel_size)
        per_group = delta(_patches(base, dropped)).unflatten(-1, (base.groups, -1))  # (…, groups, groups, filters each)
        own = per_group.diagonal(dim1=-3, dim2=-2).mT.flatten(-2)
        return own.movedim(-1, channels)

    def add_adapter(self, adapter_name: str, dropout: float, options: dict[str, Any], inference_mode: bool) -> None:
        """See `StructuneLayer.add_adapter`.

        Raises:
            TypeError: dropout on a layer of a class of its own.
        """
        if dropout:
            self._plain()
        super().add_adapter(adapter_name, dropout, options, inference_mode)

    def _adapted(self, names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """One convolution with W + ΔW where that is exact, or all that the base layer has; else one for each."""
        weight = self.get_base_weight()
        own_class = type(self.get_base_layer()) not in self.base_types
        together = not watched(self.base_layer) and all(self._folds(name, x, weight) for name in names)
        if own_class or together:
            return self._with_weight(self._effective_weight(), x, *args, **kwargs)
        return super()._adapted(names, x, *args, **kwargs)

    def _plain(self) -> Any:
        """The base layer, if its output is linear in its weight.

        Raises:
            TypeError: it is of a class of its own, whose forward may do more.
        """
        base = self.get_base_layer()
        if type(base) not in self.base_types:
            raise TypeError(
                f"{type(base).__name__} may do more than convolve, so ΔW has no output of its own: neither dropout nor "
                "adapter_names can be had for this layer"
            )
        return base


def _patches(conv: Any, x: Tensor) -> Tensor:
    """What the filters of each group see: ([batch,] channels, *space) to ([batch,] *positions, groups, numbers)."""
    dims = len(conv.kernel_size)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    windows = pad(x, conv._reversed_padding_repeated_twice, mode=mode).unflatten(-1 - dims, (conv.groups, -1))
    space = windows.dim() - dims
    for k, (size, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)):
        windows = windows.unfold(space + k, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return windows.movedim((space - 2, space - 1), (space - 2 + dims, space - 1 + dims)).flatten(space - 1 + dims)
