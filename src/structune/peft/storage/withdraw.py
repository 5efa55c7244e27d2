"""Taking an adapter out again that could not be put in or loaded."""

from __future__ import annotations

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from structune.peft.layer import StructuneLayer


def withdraw(model: nn.Module, adapter_name: str) -> None:
    """Remove an adapter, whole or half, and every layer around a module that has no adapter then.

    Args:
        model: the bare model with layers in it.
        adapter_name: the adapter; layers and copies of modules without it are left alone.
    """
    innermost_first = list(reversed(list(model.named_modules())))
    for name, module in innermost_first:
        if isinstance(module, StructuneLayer):
            if adapter_name in module.structune_delta:
                del module.structune_delta[adapter_name], module.structune_dropout[adapter_name]
            if not module.structune_delta:
                _replace(model, name, module.base_layer)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            if adapter_name in module._adapters:
                others = [other for other in module.active_adapters if other != adapter_name]
                module.delete_adapter(adapter_name, others)
            if not module._adapters:
                _replace(model, name, module.original_module)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
