"""Other numbers into a running adapter, without a new compilation."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from peft import PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict

from structune.peft.config import StructuneConfig
from structune.peft.storage.rollback import as_before_if_failing

MAKES_THE_UPDATE = (
    "structure",
    "block_size",
    "num_splits",
    "rank",
    "pool_size",
    "fixed_ratio",
    "scale",
    "init_weights",
    "sampler_version",
    "trainable_token_indices",
)
"""Options that numbers of the same sizes can still depend on; their patterns too."""


def hotswap_adapter(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> None:
    """Copy the numbers of a saved adapter into one that the model has; tensors stay where they are.

    A compiled model goes on without compiling anew. All or nothing: a file that does not fit changes nothing.

    Args:
        model: with the adapter in it, compiled or not (`torch.compile` returns a wrapper: hand in the model itself).
        folder: local folder of a saved adapter, trained with the same configuration on the same modules.
        adapter_name: the adapter that gets its numbers.

    Raises:
        ValueError: there is no such adapter, the configurations differ, or the file does not fit the model.
    """
    if adapter_name not in model.peft_config:
        raise ValueError(f"adapter_name={adapter_name!r}: the model has {sorted(model.peft_config)}")
    own, new = model.peft_config[adapter_name], StructuneConfig.from_pretrained(str(folder))
    names = {field.name for field in fields(StructuneConfig)}
    compared = [name for option in MAKES_THE_UPDATE for name in (option, f"{option}_pattern") if name in names]
    if different := [name for name in compared if getattr(own, name) != getattr(new, name)]:
        name = different[0]
        raise ValueError(
            f"{folder}: {name}={getattr(new, name)!r}, but adapter {adapter_name!r} has {getattr(own, name)!r}: only "
            "adapters of the same configuration can be swapped; use load_adapter for others"
        )
    with as_before_if_failing(model, adapter_name):
        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), adapter_name=adapter_name)
