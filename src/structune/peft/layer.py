"""The adapted layer: y = base(x) + Σ ΔW x over the active adapters, every one reading the same x."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from structune.delta import StructuredDelta


class StructuneLayer(nn.Module, BaseTunerLayer):
    """A base layer with any number of structured adapters.

    Everything is written once here, from `StructuredDelta.dense` and its forward. Another type of base layer is a
    subclass that says its sizes and how its weight is laid out, listed in `structune.peft.base_layers`.

    Args:
        base_layer: the frozen layer, or another adapter's layer around it.
    """

    adapter_layer_names: tuple[str, ...] = ("structune_delta",)
    other_param_names: tuple[str, ...] = ("structune_dropout",)

    base_types: ClassVar[tuple[type[nn.Module], ...]]
    """The base layers that the subclass adapts."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.structune_delta = nn.ModuleDict()
        self.structune_dropout = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.train(base_layer.training)

    @abstractmethod
    def features(self) -> tuple[int, int]:
        """(out_features, in_features) of the base layer."""

    @abstractmethod
    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW (out, in) laid out as the base layer's weight is."""

    def add_adapter(self, adapter_name: str, dropout: float, options: dict[str, Any], inference_mode: bool) -> None:
        """Give the layer an adapter, or replace the one of that name.

        Args:
            adapter_name: its name.
            dropout: probability of zeroing entries of its input in training.
            options: arguments of `StructuredDelta` other than the sizes.
            inference_mode: whether its numbers are frozen.

        Raises:
            ValueError: the options do not fit this layer; nothing is changed.
        """
        out_features, in_features = self.features()
        self.structune_delta[adapter_name] = StructuredDelta(out_features, in_features, **options)
        self.structune_dropout[adapter_name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.train(self.training)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of one adapter in the layout of the base weight, in at least fp32."""
        return self.to_weight_layout(self._delta(adapter_name).dense())

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' ΔW to the base weight.

        Args:
            safe_merge: check the sum for NaN and infinities before the weight is touched.
            adapter_names: which adapters; None merges the active ones.

        Raises:
            ValueError: safe_merge found a value that is not finite.
            TypeError: the base weight is quantised.
        """
        for adapter_name in check_adapters_to_merge(self, adapter_names):
            if adapter_name in self.structune_delta:
                weight = self._merged_weight(adapter_name, sign=1)
                if safe_merge and not torch.isfinite(weight).all():
                    raise ValueError(
                        f"adapter {adapter_name!r} would put NaN or infinite values into the weight, so this layer was "
                        "left as it is: the adapter's numbers are broken, load or train it again"
                    )
                self.set_base_weight(weight)
                self.merged_adapters.append(adapter_name)

    def unmerge(self) -> None:
        """Take all merged adapters out of the base weight again, exact up to rounding in its dtype."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter_name = self.merged_adapters.pop()
            if adapter_name in self.structune_delta:
                self.set_base_weight(self._merged_weight(adapter_name, sign=-1))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT's `convert_to_lora` may approximate the adapter: yes, ΔW is added to the weight."""
        return True

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) + Σ ΔW dropout(x) in the dtype of base(x)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return self.base_layer(x, *args, **kwargs)
        names = [name for name in self.active_adapters if name in self.structune_delta]
        frozen = None if args or kwargs else self.frozen_weight()
        if frozen is not None and len(names) == 1 and (folded := self._folded(names[0], x, *frozen)) is not None:
            return folded
        result: Tensor = self.base_layer(x, *args, **kwargs)
        for name in names:
            update = self.structune_delta[name](self.structune_dropout[name](x)).to(result.dtype)
            fresh = frozen is not None  # nobody else holds what a plain linear layer gave
            result = result.add_(update) if fresh else result + update
        return result

    def frozen_weight(self) -> tuple[Tensor, Tensor | None] | None:
        """W (out, in) and b, if the base layer computes x Wᵀ + b with plain tensors and does nothing else."""
        base = self.base_layer
        plain = "forward" not in vars(base) and not (base._forward_hooks or base._forward_pre_hooks)
        if type(base) not in self.base_types or not plain:
            return None
        weight, bias = base._parameters.get("weight"), base._parameters.get("bias")
        if weight is None or any(type(t) is not nn.Parameter or not t.numel() for t in (weight, bias) if t is not None):
            return None
        return self.to_weight_layout(weight), bias

    def _folded(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The whole layer as one product with W + ΔW, where that is exact and pays."""
        dropped = self.training and isinstance(self.structune_dropout[name], nn.Dropout)
        exact = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
        if dropped or not exact or torch.is_autocast_enabled(x.device.type):
            return None
        delta = self._delta(name)
        return delta.fold(x, weight, bias) if delta.resolved_algorithm(x, weight) == "fold" else None

    def _delta(self, adapter_name: str) -> StructuredDelta:
        if adapter_name not in self.structune_delta:
            raise ValueError(f"adapter {adapter_name!r} is not on this layer; it has {sorted(self.structune_delta)}")
        delta = self.structune_delta[adapter_name]
        assert isinstance(delta, StructuredDelta)
        return delta

    @torch.no_grad()
    def _merged_weight(self, adapter_name: str, sign: int) -> Tensor:
        """Base weight ± ΔW, summed in ΔW's dtype and rounded once."""
        weight = self.get_base_weight()
        if not weight.is_floating_point():
            raise TypeError(
                f"adapter {adapter_name!r} cannot be merged into a weight of dtype {weight.dtype}: "
                "merge into the model before quantising it"
            )
        delta = self.get_delta_weight(adapter_name).to(weight.device)
        return (weight.to(delta.dtype) + sign * delta).to(weight.dtype)
