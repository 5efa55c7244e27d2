"""Layers of other methods around ours: an adapter is saved as if they were not there."""

from __future__ import annotations

from collections.abc import Mapping

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from structune.peft.layer import StructuneLayer
from structune.peft.storage.sharded import StateDictNames

OURS = ".structune_"


def saved_names(model: nn.Module) -> dict[str, str]:
    """Name in the model → name in a file, of our layers that another method's layer was put around later.

    `q_proj.base_layer`, inside LoRA's layer, is `q_proj` for every model that has no LoRA.
    """
    modules = dict(StateDictNames(model).named_modules())
    names = {}
    for name, module in modules.items():
        if isinstance(module, StructuneLayer):
            parts = name.split(".")
            around = [modules.get(".".join(parts[:number])) for number in range(len(parts))]
            kept = [
                part
                for part, outer in zip(parts, around, strict=True)
                if part != "base_layer" or isinstance(outer, StructuneLayer) or not isinstance(outer, BaseTunerLayer)
            ]
            if kept != parts:
                names[name] = ".".join(kept)
    return names


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our tensors under other names of their layers; others as they are."""
    if not names:
        return dict(tensors)
    result = {}
    for key, tensor in tensors.items():
        layer, ours, rest = key.partition(OURS)
        result[f"{names.get(layer, layer)}{ours}{rest}" if ours else key] = tensor
    return result
