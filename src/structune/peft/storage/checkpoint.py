"""What a saved adapter must hold, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from structune.delta import EXTRA_STATE, FLOATS, StructuredDelta
from structune.options import InitWeights
from structune.peft.layer import StructuneLayer
from structune.peft.layers import adapted_layers

KEY_PREFIX = "structune_"


def check_adapter_folder(folder: str | Path) -> None:
    """Look over the weight file of a local adapter folder; other paths are left alone.

    Raises:
        ValueError: the file is a pickle, is truncated, holds no structune numbers, or broken ones.
    """
    weights = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    pickle = Path(folder) / WEIGHTS_NAME
    if not weights.exists():
        if pickle.exists():
            raise ValueError(
                f"{pickle} is a pickle, which can run code when loaded: only {SAFETENSORS_WEIGHTS_NAME} is read; "
                "save the adapter again with safe_serialization=True"
            )
        return
    try:
        with safe_open(weights, framework="pt") as file:
            keys = list(file.keys())
            numbers = {key: file.get_tensor(key) for key in keys if KEY_PREFIX in key}
    except SafetensorError as error:
        raise ValueError(
            f"{weights} is not a whole safetensors file ({error}): it was cut off or is something else; copy it again"
        ) from error
    if not numbers:
        held = ", ".join(keys[:3]) or "nothing"
        raise ValueError(f"{weights} holds no structune adapter (it has {held} …): is it another method's checkpoint?")
    for key, tensor in numbers.items():
        _check_values(key, tensor)


def check_state_dict(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor]) -> set[InitWeights]:
    """Hold a checkpoint, keyed as the model is, against the adapter that it is for; nothing is changed.

    Returns:
        The starts that its numbers were trained from.

    Raises:
        ValueError: numbers are missing or left over, have the wrong shape or dtype, or were made with another seed.
    """
    deltas: dict[str, StructuredDelta] = {}
    for name, layer in adapted_layers(model.named_modules(), adapter_name):
        _check_size(name, layer, state_dict)
        deltas[_prefix(name, adapter_name)] = layer.delta(adapter_name)
    given = {key for key in state_dict if f".{KEY_PREFIX}" in key}
    needed = {prefix + key for prefix, delta in deltas.items() for key in _needed(delta, prefix, given)}
    if missing := sorted(needed - given):
        raise ValueError(
            f"the checkpoint lacks {len(missing)} of the {len(needed)} tensors of adapter {adapter_name!r}, "
            f"such as {missing[0]}: it is cut short, or was made with other target_modules or another model"
        )
    if extra := sorted(given - needed - {prefix + EXTRA_STATE for prefix in deltas}):
        raise ValueError(
            f"the checkpoint holds {len(extra)} tensors that adapter {adapter_name!r} has no place for, "
            f"such as {extra[0]}: it was made with other target_modules or another model"
        )
    starts: set[InitWeights] = set()
    for prefix, delta in deltas.items():
        _check_numbers(f"{prefix}pool", state_dict[f"{prefix}pool"], delta.pool)
        try:
            starts.add(delta.stored_identity(state_dict, prefix).init_weights)
        except ValueError as error:
            raise ValueError(f"{prefix.removesuffix('.')}: {error}") from error
    return starts


def _check_size(name: str, layer: StructuneLayer, state_dict: Mapping[str, Tensor]) -> None:
    """PEFT saves the weight beside the adapter of an embedding or output layer: it must be of the model's size."""
    stored = state_dict.get(f"{name}.base_layer.{layer.weight_name}")
    if stored is None or layer.quantization_backend is not None:
        return
    own = layer.get_base_weight()
    if stored.shape != own.shape:
        raise ValueError(
            f"{name} is {tuple(own.shape)} in the model, and was {tuple(stored.shape)} where the adapter was trained: "
            f"is its vocabulary another one? Call model.resize_token_embeddings({len(stored)}) before loading it"
        )


def with_identities(state_dict: dict[str, Tensor], modules: Iterable[tuple[str, nn.Module]], adapter_name: str) -> None:
    """Put the identities beside an adapter's numbers where they are missing: who gathers parameters leaves them out."""
    for name, layer in adapted_layers(modules, adapter_name):
        prefix = _prefix(name, adapter_name)
        if f"{prefix}pool" in state_dict:
            state_dict.setdefault(prefix + EXTRA_STATE, layer.delta(adapter_name).get_extra_state())


def alike_no_more(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Other adapters that this one shares its identities with now, and will not once it is loaded."""
    parted: set[str] = set()
    for name, layer in adapted_layers(model.named_modules(), adapter_name):
        own = layer.delta(adapter_name)
        others = (other for other in layer.structune_delta if other != adapter_name)
        if own.has_identity and own.stored_identity(state_dict, _prefix(name, adapter_name)) != own.identity:
            parted |= {other for other in others if layer.delta(other).identity == own.identity}
    return sorted(parted)


def _prefix(layer: str, adapter_name: str) -> str:
    """What the names of a layer's tensors of an adapter begin with."""
    return f"{layer}.structune_delta.{adapter_name}."


def place_old_seeds(state_dict: Mapping[str, Tensor], adapter_name: str) -> dict[str, Tensor]:
    """A checkpoint, keyed as the model is; PEFT does not know the `seed` that files of 0.1 have for an identity."""
    old, new = f".{KEY_PREFIX}delta.seed", f".{KEY_PREFIX}delta.{adapter_name}.seed"
    return {key.removesuffix(old) + new if key.endswith(old) else key: value for key, value in state_dict.items()}


def _needed(delta: StructuredDelta, prefix: str, given: Collection[str]) -> Iterator[str]:
    """What the file must have for one ΔW: its numbers and, if they say nothing alone, its identity (0.1: `seed`)."""
    yield "pool"
    if delta.has_identity:
        yield "seed" if prefix + EXTRA_STATE not in given and f"{prefix}seed" in given else EXTRA_STATE


def _check_numbers(key: str, stored: Tensor, own: Tensor) -> None:
    if stored.shape != own.shape:
        raise ValueError(
            f"{key} has shape {tuple(stored.shape)} in the checkpoint and {tuple(own.shape)} in the model: "
            "options that decide how many numbers there are, such as block_size, pool_size or the family's own, are "
            "not those that it was trained with, or the layer itself has another size"
        )
    if not stored.is_floating_point():
        raise ValueError(f"{key} has dtype {stored.dtype} in the checkpoint, {own.dtype} expected")
    _check_values(key, stored)


def _check_values(key: str, stored: Tensor) -> None:
    if stored.dtype not in (*FLOATS, torch.int64):
        raise ValueError(f"{key} has dtype {stored.dtype} in the checkpoint, a float of 16, 32 or 64 bits expected")
    if not stored.isfinite().all():
        raise ValueError(f"{key} holds NaN or infinite numbers: its training diverged, or the file is broken")
