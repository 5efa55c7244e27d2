"""Which modules are adapted layers, and which of them have an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from structune.peft.layer import StructuneLayer


def all_layers(model: nn.Module) -> dict[str, StructuneLayer]:
    """Every layer of ours in a model by its name, whatever adapters it has."""
    return {name: module for name, module in model.named_modules() if isinstance(module, StructuneLayer)}


def adapted_layers(modules: Iterable[tuple[str, nn.Module]], adapter_name: str) -> Iterator[tuple[str, StructuneLayer]]:
    """Name and layer, for each of these named modules that has the adapter."""
    for name, module in modules:
        if isinstance(module, StructuneLayer) and adapter_name in module.structune_delta:
            yield name, module
