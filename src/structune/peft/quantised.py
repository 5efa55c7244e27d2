"""Quantised base weights: who gives access to them, and merging that can be undone exactly."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from peft.utils.quantization_utils import (
    ForwardOnlyQuantizationBackend,
    QuantizationBackend,
    get_quantization_kwargs,
    resolve_quantization_backend,
)
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class QuantisableLayer(Protocol):
    """What is needed here of a layer with adapters."""

    base_layer: nn.Module
    quantization_backend: QuantizationBackend | None

    def get_base_layer(self) -> nn.Module:
        """The frozen layer itself."""

    def get_base_weight(self) -> Tensor:
        """Its weight, de-quantised."""

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Quantise these values into its weight."""


def backend_of(base_layer: nn.Module, model: nn.Module) -> QuantizationBackend | None:
    """PEFT's access to a layer's quantised weight: bitsandbytes, torchao, HQQ, GPTQ, AWQ, AQLM, EETQ; None if plain.

    torchao weights can be quantised anew only as the model's own configuration says; without one they are forward-only.
    """
    if (
        type(base_layer).__module__.startswith("torch.nn.")
        and type(getattr(base_layer, "weight", None)) is nn.Parameter
    ):
        return None  # without importing the libraries that quantise
    try:
        return resolve_quantization_backend(base_layer, **get_quantization_kwargs(model))
    except ValueError:
        return ForwardOnlyQuantizationBackend("torchao (quantised outside transformers)")


PACKS = "support_avx512bf16_for_cpu"
"""bitsandbytes' attribute of a 4-bit layer that repacks its weight in evaluation, where the CPU can use it so."""


def keep_unpacked(base_layer: nn.Module) -> bool:
    """Keep a 4-bit layer of bitsandbytes from repacking its weight for faster evaluation on some CPUs.

    Repacked, the weight cannot be de-quantised, and the product has no input gradient: after one evaluation, nothing
    below the layer would learn (bitsandbytes 0.50.2).

    Returns:
        Whether it would have: `allow_packing` allows it again.
    """
    if not getattr(base_layer, PACKS, False):
        return False
    setattr(base_layer, PACKS, False)
    base_layer.state_dict()  # unpacks the weight if it is packed now
    return True


def allow_packing(base_layer: nn.Module) -> None:
    """Let a 4-bit layer that has no adapter any more repack its weight."""
    setattr(base_layer, PACKS, True)


def check_mergeable(model: nn.Module) -> None:
    """Look whether every adapted layer can be merged into, before any is.

    Raises:
        TypeError: a layer's weight is quantised in a way that cannot be made again; the message names it.
    """
    for name, layer in model.named_modules():
        backend: QuantizationBackend | None = getattr(layer, "quantization_backend", None)
        if backend is not None and not backend.supports_merge:
            raise TypeError(
                f"{name}: adapters cannot be merged into {backend.backend_name} weights, and nothing was changed: "
                "merge into the model before it is quantised, or keep the adapter unmerged"
            )


def report_merge_errors(errors: dict[str, float]) -> None:
    """Warn once of what quantising W + ΔW has cost, if anything was quantised: the errors by layer name."""
    if errors:
        worst = max(errors, key=lambda name: errors[name])
        middle = sorted(errors.values())[len(errors) // 2]
        warnings.warn(
            f"adapters were merged into {len(errors)} quantised weights: quantising W + ΔW anew left an error of "
            f"{middle:.0%} of ΔW in the median layer and {errors[worst]:.0%} in {worst}; evaluate the merged model, "
            "or merge into the model before it is quantised",
            stacklevel=2,
        )


def dequantised_product(layer: QuantisableLayer, x: Tensor) -> bool:
    """Whether the base layer de-quantises its weight to x's dtype, fp32 or fp64, and multiplies x by that."""
    backend, base = layer.quantization_backend, layer.get_base_layer()
    return (
        backend is not None
        and backend.backend_name in ("bnb 4bit", "hqq")
        and getattr(base, "compute_dtype", None) in (x.dtype, None)
        and x.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
    )


def recomputed_in_backward(make: Callable[[], Tensor], weight: Tensor) -> saved_tensors_hooks:
    """While it lasts, autograd does not save `weight`, the result of `make`, but makes it again when it needs it."""
    return saved_tensors_hooks(
        lambda saved: None if saved.data_ptr() == weight.data_ptr() else saved,
        lambda saved: make() if saved is None else saved,
    )


class QuantisedWeight:
    """The quantised weight that a layer had before adapters were merged into it.

    Args:
        layer: the layer, not merged yet.
    """

    def __init__(self, layer: QuantisableLayer) -> None:
        self.base_layer = layer.base_layer  # HQQ replaces the module,
        base = layer.get_base_layer()
        # bitsandbytes and torchao the parameter (HQQ has none: there, some transformers make `weight` a property),
        self.parameter: Any = base._parameters.get("weight")
        self.attributes = (  # bitsandbytes changes these,
            dict(vars(self.parameter)) if self.parameter is not None else {}
        )
        self.state = copy.copy(getattr(base, "state", None))  # and keeps 8-bit weights in a state beside it
        self.merge_error: float | None = None

    def weight(self, layer: QuantisableLayer) -> Tensor:
        """It de-quantised, (out, in) in at least fp32, whatever the layer holds now."""
        now = QuantisedWeight(layer)
        self.restore(layer)
        try:
            return layer.get_base_weight().to(torch.float32)
        finally:
            now.restore(layer)

    def replace(self, layer: QuantisableLayer, merged: Tensor) -> None:
        """Give the layer `merged` (out, in), quantised as this weight is, and note what quantising it has cost.

        Raises:
            TypeError: weights like this can be read but not be made anew; nothing is changed.
        """
        original = self.weight(layer)
        self.restore(layer)
        try:
            layer.set_base_weight(merged.to(layer.get_base_weight().dtype))
            error = torch.linalg.norm(layer.get_base_weight().to(merged.dtype) - merged)
        except Exception as failure:
            self.restore(layer)
            backend = layer.quantization_backend
            name = backend.backend_name if backend else type(self.parameter).__name__
            raise TypeError(
                f"this layer's {name} weight cannot be quantised anew ({failure}): it is as it was"
            ) from failure
        self.merge_error = float(error / torch.linalg.norm(merged - original).clamp_min(1e-30))

    def restore(self, layer: QuantisableLayer) -> None:
        """Put it back, bit by bit as it was."""
        layer.base_layer = self.base_layer
        base: Any = layer.get_base_layer()
        if self.parameter is not None:
            base.weight = self.parameter
            vars(self.parameter).clear()
            vars(self.parameter).update(self.attributes)
        if self.state is not None:
            base.state = copy.copy(self.state)
