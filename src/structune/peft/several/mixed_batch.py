"""Batches whose samples go through different adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from structune.peft.layer import BASE, StructuneLayer
from structune.peft.layers import all_layers


@contextmanager
def mixed_batch(model: nn.Module, adapter_names: Sequence[str] | None, num_beams: int | None) -> Iterator[None]:
    """While it lasts, every layer takes the adapter that is named for each sample.

    Args:
        model: with structune layers in it, in evaluation mode.
        adapter_names: one name for each sample of the batch, "__base__" for none; None changes nothing.
        num_beams: beams of a beam search, which repeats each sample so often, one after the other; in models with an
            encoder and a decoder, the encoder sees each sample once.

    Raises:
        ValueError: the model is in training mode, or no layer has an adapter of that name.
        TypeError: adapter_names is not a list of names.
    """
    if adapter_names is None:
        yield
        return
    _check(model, adapter_names)
    beams = num_beams if isinstance(num_beams, int) and num_beams > 1 else 1
    repeated = [name for name in adapter_names for _ in range(beams)]
    once = set(_encoder_modules(model))
    handles = [
        module.register_forward_pre_hook(
            _naming(_known(module, adapter_names if module in once else repeated)), with_kwargs=True
        )
        for module in model.modules()
        if isinstance(module, (StructuneLayer, AuxiliaryTrainingWrapper))
    ]
    layers = all_layers(model).values()
    try:
        for layer in layers:
            layer.by_sample = True
        yield
    finally:
        for layer in layers:
            layer.by_sample = False
        for handle in handles:
            handle.remove()


def _check(model: nn.Module, adapter_names: Sequence[str]) -> None:
    if isinstance(adapter_names, str) or not all(isinstance(name, str) for name in adapter_names):
        raise TypeError(f"adapter_names={adapter_names!r} must be a list with the name of an adapter for each sample")
    if model.training:
        raise ValueError("adapter_names picks adapters in evaluation only: call model.eval() first")
    known = {name for layer in all_layers(model).values() for name in layer.structune_delta}
    if unknown := sorted(set(adapter_names) - known - {BASE}):
        raise ValueError(f"adapter_names has {unknown}, but the model has {sorted(known)}; {BASE!r} is the base model")


def _known(module: nn.Module, adapter_names: Sequence[str]) -> Sequence[str]:
    """The names as the module knows them: where an adapter trains no copy of it in full, the base model's serves."""
    if isinstance(module, StructuneLayer):
        return adapter_names
    return [name if name in module._adapters else BASE for name in adapter_names]  # type: ignore[operator]


def _naming(adapter_names: Sequence[str]) -> Any:
    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "adapter_names": adapter_names}

    return hook


def _encoder_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Modules of the encoder, where there is one beside a decoder."""
    inner: Any = getattr(model, "model", model)
    encoder = inner.get_encoder() if hasattr(inner, "get_encoder") else None
    if isinstance(encoder, nn.Module) and encoder is not inner:
        yield from encoder.modules()
