"""Adapters in models without PEFT's wrapper: those of diffusers, and any after `peft.inject_adapter_in_model`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn

from structune.peft.config import StructuneConfig
from structune.peft.convert.converted import Converted
from structune.peft.layers import adapted_layers
from structune.peft.storage.hosts import set_training
from structune.peft.storage.keys import PREFIX, bare
from structune.peft.storage.rollback import as_before_if_failing

_DENOISERS = ("unet", "transformer")


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


def load_adapter(model: Any, folder: str | Path, adapter_name: str = "default", *, is_trainable: bool = False) -> None:
    """Put a saved adapter into an unwrapped model, beside those that it has, and make it the active one.

    Into a pipeline of diffusers it goes by the names of its components: an adapter of a text encoder and a denoiser
    goes into both, one of a single model into the pipeline's denoiser.

    Args:
        model: any module (diffusers' models, transformers' models, one's own), or a pipeline of diffusers.
        folder: of an adapter that `save_adapter` or PEFT's `save_pretrained` wrote.
        adapter_name: its name from now on.
        is_trainable: whether its numbers are to be trained further.

    Raises:
        ValueError: the name is taken, the files are broken or do not fit the model, which is then as it was.
        TypeError: the adapter is another method's.
    """
    config = StructuneConfig.from_pretrained(str(folder))
    saved = load_file(Path(folder) / SAFETENSORS_WEIGHTS_NAME)
    tensors = {bare(name): tensor for name, tensor in saved.items()}
    parts = [(model, tensors)] if isinstance(model, nn.Module) else _by_component(model, tensors, config)
    for part, _ in parts:
        if adapter_name in getattr(part, "peft_config", {}):
            raise ValueError(f"adapter_name={adapter_name!r} is taken: the model has {_names(part)}; choose another")
    config.inference_mode = not is_trainable
    with ExitStack() as stack:
        for part, _ in parts:
            stack.enter_context(as_before_if_failing(part))
        for part, numbers in parts:
            inject_adapter_in_model(copy.deepcopy(config), part, adapter_name)
            set_peft_model_state_dict(part, numbers, adapter_name)
    for part, _ in parts:
        for _, layer in adapted_layers(part.named_modules(), adapter_name):
            layer.set_adapter(adapter_name, inference_mode=not is_trainable)
        if is_trainable:
            set_training(part, adapter_name)
        if hasattr(part, "_hf_peft_config_loaded"):  # what add_adapter of diffusers and transformers marks
            part._hf_peft_config_loaded = True  # type: ignore[assignment]


def _by_component(
    pipeline: Any, tensors: Mapping[str, Tensor], config: StructuneConfig
) -> list[tuple[nn.Module, dict[str, Tensor]]]:
    """The components of a pipeline that the numbers are of, each with its numbers."""
    there: dict[str, Any] = dict(getattr(pipeline, "components", {}))
    components = {name: part for name, part in there.items() if isinstance(part, nn.Module)}
    named = {name.partition(".")[0] for name in tensors}
    if not named <= components.keys():
        denoiser = next((components[name] for name in _DENOISERS if name in components), None)
        if denoiser is None:
            raise ValueError(f"model: {type(pipeline).__name__} is neither a module nor a pipeline with a denoiser")
        return [(denoiser, dict(tensors))]
    if len(named) > 1 and config.pool_scope != "matrix":
        raise ValueError(
            f"the adapter's pools are shared (pool_scope={config.pool_scope!r}) among {', '.join(sorted(named))}, "
            f"which are models of their own in a pipeline; load it with PEFT, as its model card shows, or merge it"
        )
    return [
        (
            components[name],
            {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{name}.")},
        )
        for name in sorted(named)
    ]


def _names(model: nn.Module) -> list[str]:
    return sorted(getattr(model, "peft_config", {}))
