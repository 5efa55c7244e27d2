"""The types of layers that can be adapted: one small class each."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from structune.peft.layer import StructuneLayer


class StructuneLinear(StructuneLayer):
    """nn.Linear: y = x Wᵀ + b with W (out, in)."""

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def features(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        base = self.get_base_layer()
        return base.out_features, base.in_features  # type: ignore[return-value]

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW itself."""
        return delta


class StructuneConv1D(StructuneLayer):
    """transformers' Conv1D, as in GPT-2: y = x W + b with W (in, out)."""

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (Conv1D,)

    def features(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        in_features, out_features = self.get_base_weight().shape
        return out_features, in_features

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW transposed."""
        return delta.T


BASE_LAYERS: tuple[type[StructuneLayer], ...] = (StructuneLinear, StructuneConv1D)
"""Layer classes in the order in which they are tried."""


def layer_class(base_layer: nn.Module) -> type[StructuneLayer]:
    """The class that adapts this base layer.

    Raises:
        TypeError: none does; the message lists the types that can be adapted.
    """
    for cls in BASE_LAYERS:
        if isinstance(base_layer, cls.base_types):
            return cls
    known = ", ".join(base.__name__ for cls in BASE_LAYERS for base in cls.base_types)
    raise TypeError(
        f"a layer of type {type(base_layer).__name__} cannot be adapted: target_modules may name {known} layers"
    )
