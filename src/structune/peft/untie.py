"""Tied weights: an adapted layer gets a weight of its own before ΔW is added to it, so that no other layer changes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

from torch import nn

from structune.peft.layer import StructuneLayer

FLAG = "tie_word_embeddings"
"""transformers' option that ties weights again when a model is loaded."""


class Holder(NamedTuple):
    """A module that holds a parameter, by one of its names."""

    name: str
    module: nn.Module
    parameter: str
    layer: StructuneLayer | None
    """What adapts the parameter there."""


def untie(model: nn.Module) -> None:
    """Give adapted layers whose weight is another module's too, such as tied embeddings, a weight of their own.

    A module that is registered twice and adapted in one place is two modules then. Where weights of a model of
    transformers part, loading must not tie them again: its `tie_word_embeddings` is set to False and all that it had
    tied gets weights of its own, for none would be read from a file that holds one of them only. Models that compute
    something else with the option off keep it: transformers sees that the weights in the file differ. One warning
    names all.
    """
    shared = _shared(model)
    parted = []
    for holders in shared:
        for layer in dict.fromkeys(holder.layer for holder in holders):
            others = [holder for holder in holders if holder.layer is not layer]
            if layer is None or layer.quantization_backend is not None or not others:
                continue
            own = [holder for holder in holders if holder.layer is layer]
            parted.append(f"{own[0].name} shares its weight with {', '.join(other.name for other in others)}")
            if any(other.module is own[0].module for other in others):
                _copy_module(layer)
            _copy_parameter(layer.get_base_layer(), layer.weight_name)
            holders[:] = others
    if parted:
        warnings.warn(
            f"{'; '.join(parted)}: an adapted layer gets a copy of its own before the adapter is merged, so these "
            f"weights are no longer tied{_keep_apart(model)}",
            stacklevel=2,
        )


@contextmanager
def tying_as_it_is(model: nn.Module) -> Iterator[None]:
    """While it lasts, PEFT's merging says and does nothing about tied weights: `untie` has."""
    if not any(_reads_flag(type(module)) for module in model.modules()):
        yield
        return
    configs = list(_tying_configs(model))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")
        yield
    for config in configs:
        setattr(config, FLAG, True)


def _shared(model: nn.Module) -> list[list[Holder]]:
    """The parameters that are held in more than one place, or under more than one name."""
    holders: dict[int, list[Holder]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holder = Holder(path.replace(".base_layer", ""), module, name, _adapting(model, path, name))
                holders.setdefault(id(parameter), []).append(holder)
    return [found for found in holders.values() if len(found) > 1]


def _adapting(model: nn.Module, path: str, parameter: str) -> StructuneLayer | None:
    """The layer around the module of that path that adapts its parameter."""
    while path.endswith(".base_layer"):
        path = path.removesuffix(".base_layer")
        layer = model.get_submodule(path)
        if isinstance(layer, StructuneLayer) and layer.weight_name == parameter:
            return layer
    return None


def _copy_module(layer: StructuneLayer) -> None:
    """Give the layer a base layer of its own, with the same parameters."""
    holder: Any = layer
    while hasattr(holder.base_layer, "base_layer"):
        holder = holder.base_layer
    again = copy.copy(holder.base_layer)
    for name in ("_parameters", "_buffers", "_modules"):
        vars(again)[name] = vars(again)[name].copy()
    holder.base_layer = again


def _copy_parameter(module: nn.Module, name: str) -> None:
    parameter = module.get_parameter(name)
    setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))


def _keep_apart(model: nn.Module) -> str:
    """See that a saved copy of the model is loaded as it is; what was done, in words."""
    configs = list(_tying_configs(model))
    if not configs:
        return ""
    if any(_reads_flag(type(module)) for module in model.modules()):
        return f" ({FLAG} stays on, for the model computes something else without it)"
    for holders in _shared(model):
        for holder in {id(holder.module): holder for holder in holders[1:]}.values():
            if holder.module is not holders[0].module:
                _copy_parameter(holder.module, holder.parameter)
    for config in configs:
        setattr(config, FLAG, False)
    for module in model.modules():
        if "all_tied_weights_keys" in vars(module):
            module.all_tied_weights_keys = {}  # type: ignore[assignment]
    return f", nor when the model is loaded again: {FLAG} is False now, and all that it had tied is saved"


def _tying_configs(model: nn.Module) -> Iterator[Any]:
    """The configurations in a model, and in these, that tie weights."""
    for module in model.modules():
        config: Any = vars(module).get("config")
        nested = config.get_text_config() if hasattr(config, "get_text_config") else config
        for found in (config, nested):
            if getattr(found, FLAG, False):
                yield found


def _reads_flag(cls: type) -> bool:
    """Whether what a class computes depends on whether weights are tied."""
    forward: Any = getattr(cls, "forward", None)
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    return isinstance(forward, FunctionType) and FLAG in forward.__code__.co_names
