"""The types of layers that can be adapted: one small class each."""

from __future__ import annotations

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from structune.peft.base_layers.attention import StructuneMultiheadAttention
from structune.peft.base_layers.conv import StructuneConv
from structune.peft.base_layers.embedding import StructuneEmbedding
from structune.peft.base_layers.linear import StructuneConv1D, StructuneLinear
from structune.peft.base_layers.parameter import ParamWrapper
from structune.peft.layer import StructuneLayer
from structune.peft.quantised import backend_of, keep_unpacked

BASE_LAYERS: tuple[type[StructuneLayer], ...] = (
    StructuneLinear,
    StructuneConv1D,
    StructuneConv,
    StructuneEmbedding,
    StructuneMultiheadAttention,
)
"""Layer classes in the order in which they are tried."""

__all__ = [
    "BASE_LAYERS",
    "ParamWrapper",
    "StructuneConv",
    "StructuneConv1D",
    "StructuneEmbedding",
    "StructuneLinear",
    "StructuneMultiheadAttention",
    "layer_class",
    "wrap",
]


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
        f"a layer of type {type(base_layer).__name__} cannot be adapted: target_modules may name {known} layers, and "
        "target_parameters any parameter that is a matrix or a stack of matrices"
    )


def wrap(target: nn.Module, model: nn.Module) -> StructuneLayer:
    """`target`, a layer of `model` or another adapter's layer around one, as a layer that adapters can be put into.

    Args:
        target: what is wrapped; it is not changed.
        model: the whole model; its configuration says how weights are quantised.

    Raises:
        TypeError: layers of this type cannot be adapted.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    backend = backend_of(base, model)
    linear = backend is not None and backend.layer_type == "linear"
    layer = (StructuneLinear if linear else layer_class(base))(target)
    layer.quantization_backend = backend
    layer.packs = keep_unpacked(base)
    return layer
