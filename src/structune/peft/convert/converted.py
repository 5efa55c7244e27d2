"""What a conversion reads and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from structune.files import new_folder
from structune.peft.config import StructuneConfig
from structune.peft.layer import StructuneLayer
from structune.peft.layers import adapted_layers
from structune.peft.storage.ordered import in_order

Part = TypeVar("Part")


@dataclass(frozen=True)
class Converted:
    """An adapter in another form.

    Args:
        config: its configuration.
        state_dict: its tensors, named as in an adapter file.
        errors: ‖ΔW converted − ΔW‖ / ‖ΔW‖ (Frobenius) by module name; near 0 where the conversion is exact.
    """

    config: PeftConfig
    state_dict: Mapping[str, Tensor]
    errors: Mapping[str, float] = field(default_factory=dict)

    def save(self, folder: str | Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, whole or not at all.

        Raises:
            FileExistsError: the folder is there and holds something, or is a file or a link.
        """
        folder = Path(folder)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise FileExistsError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}: name a new folder")
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} holds files already: name an empty or a new folder")
        with new_folder(folder) as whole:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict.items()}
            save_file(tensors, whole / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
            with in_order(self.config):
                self.config.save_pretrained(str(whole))

    def load_into(self, model: nn.Module) -> PeftModel:
        """The base model with this adapter in it, as `PeftModel.from_pretrained` would give it."""
        adapted = get_peft_model(model, self.config)
        set_peft_model_state_dict(adapted, dict(self.state_dict))
        assert isinstance(adapted, PeftModel)
        return adapted

    def __str__(self) -> str:
        """The errors, worst first."""
        worst = sorted(self.errors.items(), key=lambda item: -item[1])
        lines = [f"{error:9.2e}  {name}" for name, error in worst]
        return "\n".join(["relative error of ΔW by module, worst first:", *lines])


def read(source: PeftModel | str | Path, adapter_name: str) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Configuration and tensors of an adapter, from a live model or from a local folder.

    Raises:
        ValueError: the model has no such adapter, or the folder no safetensors file.
    """
    if not isinstance(source, (str, Path)):
        if adapter_name not in source.peft_config:
            raise ValueError(f"adapter_name={adapter_name!r}: the model has {sorted(source.peft_config)}")
        return source.peft_config[adapter_name], get_peft_model_state_dict(source, adapter_name=adapter_name)
    weights = Path(source) / SAFETENSORS_WEIGHTS_NAME
    if not weights.is_file():
        raise ValueError(f"{source}: there is no {SAFETENSORS_WEIGHTS_NAME} here: name the folder of a saved adapter")
    return PeftConfig.from_pretrained(str(source)), load_file(weights)


def read_own(model: PeftModel, adapter_name: str, reader: str) -> tuple[StructuneConfig, dict[str, Tensor]]:
    """Configuration and tensors of an adapter of structune's.

    Args:
        model: a live model with the adapter.
        adapter_name: which adapter.
        reader: the function that asks, for the error.

    Raises:
        ValueError: the model has no such adapter, or it is another method's.
    """
    config, tensors = read(model, adapter_name)
    if not isinstance(config, StructuneConfig):
        raise ValueError(f"adapter {adapter_name!r} is of type {config.peft_type}: {reader} reads structune's adapters")
    return config, tensors


def of_each_layer(model: PeftModel, adapter_name: str, part: Callable[[StructuneLayer, str], Part]) -> dict[str, Part]:
    """What `part` makes of each adapted layer and the adapter's name, by the layer's name.

    Raises:
        ValueError: it refuses a layer; the message names the layer.
    """
    parts = {}
    for name, layer in adapted_layers(model.get_base_model().named_modules(), adapter_name):
        try:
            parts[name] = part(layer, adapter_name)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return parts
