"""Adapters in models without PEFT's wrapper: those of diffusers, and any after `peft.inject_adapter_in_model`."""

from __future__ import annotations

from pathlib import Path

from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import nn

from structune.peft.config import StructuneConfig
from structune.peft.convert.converted import Converted
from structune.peft.layers import adapted_layers
from structune.peft.storage.hosts import set_training
from structune.peft.storage.keys import PREFIX, bare
from structune.peft.storage.rollback import as_before_if_failing


def save_adapter(model: nn.Module, folder: str | Path, adapter_name: str = "default") -> None:
    """Write an adapter of an unwrapped model as PEFT writes one: `PeftModel.from_pretrained` reads it as well.

    Args:
        model: the model that the adapter was injected into.
        folder: a new or an empty one; it gets adapter_config.json and adapter_model.safetensors, or nothing.
        adapter_name: which of its adapters.

    Raises:
        ValueError: the model has no such structune adapter.
        FileExistsError: the folder holds something.
    """
    config = getattr(model, "peft_config", {}).get(adapter_name)
    if not isinstance(config, StructuneConfig):
        raise ValueError(f"adapter_name={adapter_name!r}: the model has {_names(model) or 'no structune adapter'}")
    tensors = get_peft_model_state_dict(model, adapter_name=adapter_name)
    Converted(config, {PREFIX + name: tensor for name, tensor in tensors.items()}).save(folder)


def load_adapter(
    model: nn.Module, folder: str | Path, adapter_name: str = "default", *, is_trainable: bool = False
) -> None:
    """Put a saved adapter into an unwrapped model, beside those that it has, and make it the active one.

    Args:
        model: any module; diffusers' models, transformers' models, one's own.
        folder: of an adapter that `save_adapter` or PEFT's `save_pretrained` wrote.
        adapter_name: its name from now on.
        is_trainable: whether its numbers are to be trained further.

    Raises:
        ValueError: the name is taken, the files are broken or do not fit the model, which is then as it was.
        TypeError: the adapter is another method's.
    """
    if adapter_name in getattr(model, "peft_config", {}):
        raise ValueError(f"adapter_name={adapter_name!r} is taken: the model has {_names(model)}; choose another")
    config = StructuneConfig.from_pretrained(str(folder))
    tensors = load_file(Path(folder) / SAFETENSORS_WEIGHTS_NAME)
    config.inference_mode = not is_trainable
    with as_before_if_failing(model):
        inject_adapter_in_model(config, model, adapter_name)
        set_peft_model_state_dict(model, {bare(name): tensor for name, tensor in tensors.items()}, adapter_name)
    for _, layer in adapted_layers(model.named_modules(), adapter_name):
        layer.set_adapter(adapter_name, inference_mode=not is_trainable)
    if is_trainable:
        set_training(model, adapter_name)
    if hasattr(model, "_hf_peft_config_loaded"):  # what add_adapter of diffusers and transformers marks
        model._hf_peft_config_loaded = True  # type: ignore[assignment]


def _names(model: nn.Module) -> list[str]:
    return sorted(getattr(model, "peft_config", {}))
