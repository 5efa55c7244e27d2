"""Adapters that learn nothing: named in one warning, after the first steps of the optimizer that is to train them."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from structune.peft.layer import StructuneLayer
from structune.peft.layers import adapted_layers

_waiting: WeakKeyDictionary[StructuneLayer, dict[str, str]] = WeakKeyDictionary()
"""Layers that no optimizer has trained yet: their adapters, and the names that they go by."""

_looked: WeakKeyDictionary[Optimizer, tuple[int, int]] = WeakKeyDictionary()
"""Optimizers that have not told yet: the steps that were looked at, and the adapters that have learned in them."""

_handles: list[RemovableHandle] = []

SHOWN = 5

PATIENCE = 3
"""Steps after which a gradient of exact zeros is none: the first ones may be skipped, or start at a head of zeros."""


def watch(layer: StructuneLayer, adapter_name: str, module_name: str) -> None:
    """Look after the first step whether an adapter has got a gradient, whatever wraps or trains the model.

    Args:
        layer: with the adapter, or around layers with it.
        adapter_name: which one.
        module_name: the layer's name in the model.
    """
    for below, inner in adapted_layers(layer.named_modules(), adapter_name):
        _waiting.setdefault(inner, {})[adapter_name] = f"{module_name}.{below}".rstrip(".")
    if not _handles:
        _handles.append(register_optimizer_step_post_hook(_after_step))


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """What adapters that this optimizer trains have got no gradient; each is told once.

    That is after the first step in which something learns, or after a few where nothing does or gradients are zeros.
    """
    if torch.compiler.is_compiling():
        return
    parameters = {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}
    trained = [(layer, name) for layer, names in _waiting.items() for name in names if _is_trained(layer, name)]
    ours = [(layer, name) for layer, name in trained if id(layer.delta(name).pool) in parameters]
    if not ours:
        return
    learning = {place for place, pool in enumerate(_pools(ours)) if _learns(pool, optimizer)}
    silent = [adapter for place, adapter in enumerate(ours) if place not in learning]
    steps, learned = _looked.get(optimizer, (0, 0))
    steps, learned = steps + 1, learned + len(learning)
    something = learned or any(_learns(parameter, optimizer) for parameter in parameters.values())
    unsure = not something or any(pool.grad is not None for pool in _pools(silent))
    if silent and unsure and steps < PATIENCE:
        _looked[optimizer] = (steps, learned)
        done = [adapter for place, adapter in enumerate(ours) if place in learning]
        idle = []
    else:
        _looked.pop(optimizer, None)
        done, idle = ours, [_waiting[layer][name] for layer, name in silent]
    _forget(done)
    if idle:
        more = f" and {len(idle) - SHOWN} more" if len(idle) > SHOWN else ""
        after = "the first step" if steps == 1 else f"{steps} steps"
        warnings.warn(
            f"{len(idle)} of {learned + len(idle)} adapters have got no gradient so far, after {after}: "
            f"{', '.join(idle[:SHOWN])}{more}. Either these layers are in a branch that was not taken, or a module "
            "around them reads their weight instead of calling them, and they learn nothing: leave them out with "
            "exclude_modules, or name the weight in target_parameters",
            stacklevel=2,
        )


def _pools(adapters: list[tuple[StructuneLayer, str]]) -> list[nn.Parameter]:
    return [layer.delta(name).pool for layer, name in adapters]


def _learns(parameter: nn.Parameter, optimizer: Optimizer) -> bool:
    """Whether a step has had a gradient for a parameter, other than zeros."""
    gradient = parameter.grad
    if gradient is None:
        return bool(optimizer.state.get(parameter))  # some optimizers take gradients away in their step
    part = gradient.is_meta or gradient.is_sparse or not gradient.numel() or hasattr(gradient, "to_local")
    return part or bool(gradient.any())


def _forget(adapters: list[tuple[StructuneLayer, str]]) -> None:
    """Look at these adapters no more."""
    for layer, name in adapters:
        del _waiting[layer][name]
        if not _waiting[layer]:
            del _waiting[layer]
    if not _waiting:
        _handles.pop().remove()


def _is_trained(layer: StructuneLayer, name: str) -> bool:
    """Whether an adapter is on, and to be trained."""
    on = name in layer.structune_delta and name in layer.active_adapters and not layer.disable_adapters
    return on and not layer.merged and layer.delta(name).pool.requires_grad
