"""Weights that are computed from other tensors whenever they are read: a change of them would be lost."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.nn.utils import parametrize


def check_stored(module: nn.Module, name: str, *, views: bool = False) -> None:
    """Raise TypeError unless a weight is stored, as a parameter or a buffer; the message names the fix.

    Args:
        module: the layer that holds it.
        name: of the parameter.
        views: whether something else may stand in its place, such as the views and wrappers of FSDP.
    """
    if name in module._parameters or name in module._buffers:
        if isinstance(getattr(module, name), UninitializedTensorMixin):  # is_lazy breaks compiled graphs
            raise TypeError(f"{name!r} has no size yet: run the model once before it is adapted")
        return
    if how := _computed_by(module, name):
        raise TypeError(f"{name!r} is computed {how} first, otherwise what is added to it would be lost")
    if not views:
        raise TypeError(f"{name!r} is no parameter of {type(module).__name__}: make it one first")


def _computed_by(module: nn.Module, name: str) -> str | None:
    """What computes a weight and how it is made a plain one, in words; None: nothing that can be seen."""
    if parametrize.is_parametrized(module, name):
        steps: Any = module.parametrizations
        kinds = ", ".join(type(step).__name__.strip("_") for step in steps[name])
        return f"by a parametrization ({kinds}): call nn.utils.parametrize.remove_parametrizations(module, {name!r})"
    for hook in module._forward_pre_hooks.values():
        if name in (getattr(hook, "name", None), getattr(hook, "_tensor_name", None)):
            kind = type(hook).__name__
            undone = f"prune.remove(module, {name!r})" if hasattr(hook, "_tensor_name") else _REMOVED.get(kind)
            return f"before each call ({kind}): call nn.utils.{undone or 'what takes it away again,'}"
    if module._forward_pre_hooks:
        return "before each call, by a hook: remove the hook, make it an nn.Parameter"
    return None


_REMOVED = {"WeightNorm": "remove_weight_norm(module)", "SpectralNorm": "remove_spectral_norm(module)"}
