"""Other numbers into a running adapter, without a new compilation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import nn

from structune.options import OPTIONS, PATTERNED
from structune.peft.config import StructuneConfig
from structune.peft.storage.keys import bare
from structune.peft.storage.rollback import as_before_if_failing

MAKES_THE_UPDATE = (
    *(name for name, option in OPTIONS.items() if option.metadata["makes_the_update"]),
    *(f"{name}_pattern" for name in PATTERNED),
    "sampler_version",
    "trainable_token_indices",
)
"""Options that numbers of the same sizes can still depend on."""


def hotswap_adapter(model: nn.Module, folder: str | Path, adapter_name: str = "default") -> Any:
    """Copy the numbers of a saved adapter into one that the model has; tensors stay where they are.

    A compiled model goes on without compiling anew. All or nothing: a file that does not fit changes nothing.

    Args:
        model: with the adapter in it, wrapped by PEFT or bare, compiled or not (`torch.compile` returns a wrapper: hand
            in the model itself).
        folder: local folder of a saved adapter, trained with the same configuration on the same modules.
        adapter_name: the adapter that gets its numbers.

    Returns:
        what PEFT reports of the keys of the file.

    Raises:
        ValueError: there is no such adapter, the configurations differ, or the file does not fit the model.
    """
    configs: Mapping[str, PeftConfig] = getattr(model, "peft_config", {})
    if not isinstance(configs.get(adapter_name), StructuneConfig):
        raise ValueError(f"adapter_name={adapter_name!r}: the model has {sorted(configs)}, which must be structune's")
    own, new = configs[adapter_name], StructuneConfig.from_pretrained(str(folder))
    if different := [name for name in MAKES_THE_UPDATE if getattr(own, name) != getattr(new, name)]:
        name = different[0]
        raise ValueError(
            f"{folder}: {name}={getattr(new, name)!r}, but adapter {adapter_name!r} has {getattr(own, name)!r}: only "
            "adapters of the same configuration can be swapped; use load_adapter for others"
        )
    with as_before_if_failing(model, adapter_name):
        tensors = load_peft_weights(str(folder), device="cpu")
        if not isinstance(model, PeftModel):
            tensors = {bare(name): tensor for name, tensor in tensors.items()}
        return set_peft_model_state_dict(model, tensors, adapter_name=adapter_name)
