"""Adapters that nothing learns: named in one warning, after the first step of the optimizer that is to train them."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from structune.peft.layer import StructuneLayer

_waiting: WeakKeyDictionary[StructuneLayer, dict[str, str]] = WeakKeyDictionary()
"""Layers that no optimizer has trained yet: their adapters, and the names that they go by."""

_handles: list[RemovableHandle] = []

SHOWN = 5


def watch(layer: StructuneLayer, adapter_name: str, module_name: str) -> None:
    """Look after the first step whether an adapter has got a gradient, whatever wraps or trains the model.

    Args:
        layer: with the adapter, or around layers with it.
        adapter_name: which one.
        module_name: the layer's name in the model.
    """
    for below, module in layer.named_modules():
        if isinstance(module, StructuneLayer) and adapter_name in module.structune_delta:
            _waiting.setdefault(module, {})[adapter_name] = f"{module_name}.{below}".rstrip(".")
    if not _handles:
        _handles.append(register_optimizer_step_post_hook(_after_step))


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """What adapters that this optimizer trains have got no gradient; each is looked at once."""
    if torch.compiler.is_compiling():
        return
    trained = [(layer, name) for layer, names in _waiting.items() for name in names if _is_trained(layer, name)]
    if not trained:
        return
    parameters = {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}
    if all(parameter.grad is None for parameter in parameters.values()):
        return  # nothing was learned at all
    idle, looked_at = [], 0
    for layer, name in trained:
        pool = layer.delta(name).pool
        if id(pool) in parameters:
            looked_at += 1
            where = _waiting[layer].pop(name)
            if pool.grad is None:
                idle.append(where)
    for layer in [layer for layer, names in _waiting.items() if not names]:
        del _waiting[layer]
    if not _waiting:
        _handles.pop().remove()
    if idle:
        more = f" and {len(idle) - SHOWN} more" if len(idle) > SHOWN else ""
        warnings.warn(
            f"{len(idle)} of {looked_at} adapters have got no gradient so far, after the first step: "
            f"{', '.join(idle[:SHOWN])}{more}. Either these layers are in a branch that was not taken, or a module "
            "around them reads their weight instead of calling them, and they learn nothing: leave them out with "
            "exclude_modules, or name the weight in target_parameters",
            stacklevel=2,
        )


def _is_trained(layer: StructuneLayer, name: str) -> bool:
    """Whether an adapter is on, and to be trained."""
    on = name in layer.structune_delta and name in layer.active_adapters and not layer.disable_adapters
    return on and layer.training and not layer.merged and layer.delta(name).pool.requires_grad
