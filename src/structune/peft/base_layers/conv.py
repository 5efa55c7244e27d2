"""Convolutions in space: ΔW is a structured matrix of filters × what one filter sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from structune.peft.layer import StructuneLayer


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
        """The convolution of dropout(x) with ΔW, no bias."""
        delta = self.get_delta_weight(adapter_name).to(x.dtype)
        result: Tensor = self._plain()._conv_forward(self.structune_dropout[adapter_name](x), delta, None)
        return result

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
        if own_class or all(self._folds(name, x, weight) for name in names):
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
