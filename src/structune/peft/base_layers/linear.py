"""Linear layers: ΔW x is a structured product, or part of the frozen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from structune.peft.layer import StructuneLayer
from structune.peft.own_forward import redefines
from structune.peft.quantised import dequantised_product, recomputed_in_backward
from structune.peft.watched import watched
from structune.surroundings import looked_on


def _written_out(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  transformers' FalconLinear
    y = x @ self.weight.T
    if self.bias is None:
        return y
    return y + self.bias


class StructuneLinear(StructuneLayer):
    """nn.Linear: y = x Wᵀ + b with W (out, in). Quantised linear layers of other classes too."""

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)
    does: ClassVar[str] = "multiply by its weight"
    known_forwards: ClassVar[tuple[Callable[..., Any], ...]] = (_written_out,)

    def features(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        base: Any = self.get_base_layer()
        if hasattr(base, "infeatures"):  # as GPTQ's layers write it
            return base.outfeatures, base.infeatures
        return base.out_features, base.in_features

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW itself."""
        return delta

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """ΔW dropout(x)."""
        result: Tensor = self.delta(adapter_name)(self.structune_dropout[adapter_name](x))
        return result

    def example(self) -> Tensor:
        """Two inputs."""
        return torch.randn(2, self.features()[1], dtype=self.get_base_weight().dtype)

    def frozen_weight(self) -> tuple[Tensor, Tensor | None] | None:
        """W (out, in) and b, if the base layer's own forward is x Wᵀ + b with plain tensors."""
        base = self.base_layer
        plain = any(isinstance(base, parent) and not redefines(base, parent) for parent in self.base_types)
        if not plain or "forward" in vars(base) or "bias" not in base._parameters:
            return None
        weight, bias = base._parameters.get("weight"), base._parameters["bias"]
        if weight is None or any(type(t) is not nn.Parameter or not t.numel() for t in (weight, bias) if t is not None):
            return None
        return self.to_weight_layout(weight), bias

    def _adapted(self, names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """One product with W + ΔW where that is exact and pays, else base(x) and the updates."""
        plain = not (args or kwargs) and not watched(self.base_layer)
        frozen = self.frozen_weight() if plain else None
        if len(names) == 1 and plain and (folded := self._folded(names[0], x, frozen)) is not None:
            return folded
        if frozen is None:
            return super()._adapted(names, x, *args, **kwargs)
        if looked_on():
            return super()._adapted(names, x)
        result: Tensor = self.base_layer(x)
        for name in names:
            result = result.add_(self.update(name, x).to(result.dtype))  # nobody else holds what a plain layer gave
        return result

    def _folded(self, name: str, x: Tensor, frozen: tuple[Tensor, Tensor | None] | None) -> Tensor | None:
        """The layer as one product; a weight that is de-quantised for it is not kept for the backward pass."""
        delta = self.delta(name)
        if frozen is not None:
            fold = self._folds(name, x, frozen[0]) and delta.folds(x, frozen[0])
            return delta.fold(x, *frozen) if fold else None
        if not dequantised_product(self, x) or self.base_layer is not self.get_base_layer():
            return None
        like = x.new_empty(0)
        if not (self._folds(name, x, like) and delta.folds(x, like)):
            return None
        weight = self._dequantised(x.dtype)
        bias: Any = self.get_base_layer().bias
        with recomputed_in_backward(lambda: self._dequantised(x.dtype), weight):
            return delta.fold(x, weight, None if bias is None else bias.to(x.dtype))

    def _dequantised(self, dtype: torch.dtype) -> Tensor:
        assert self.quantization_backend is not None
        return self.quantization_backend.get_base_weight(self.get_base_layer()).detach().to(dtype)


class StructuneConv1D(StructuneLinear):
    """transformers' Conv1D, as in GPT-2: y = x W + b with W (in, out)."""

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (Conv1D,)
    known_forwards: ClassVar[tuple[Callable[..., Any], ...]] = ()  # its weight is laid out the other way

    def features(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        in_features, out_features = self.get_base_weight().shape
        return out_features, in_features

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW transposed."""
        return delta.T
