"""The PEFT method: putting adapters into a model."""

from __future__ import annotations

import hashlib
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn

from structune.peft.base_layers import layer_class
from structune.peft.checkpoint import check_state_dict
from structune.peft.config import StructuneConfig
from structune.peft.layer import StructuneLayer


class StructuneModel(BaseTuner):
    """A model with structured adapters; made by `peft.get_peft_model(model, StructuneConfig(…))`."""

    prefix: str = "structune_"
    tuner_layer_cls = StructuneLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adapt every targeted layer, or, if one of them cannot be, none.

        Raises:
            ValueError, TypeError: a layer does not fit; the message names it, and the model is as it was.
        """
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            _withdraw(model, adapter_name)
            raise

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: StructuneConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        options = peft_config.layer_options(current_key) | {"stream": stream_of(current_key)}
        try:
            if isinstance(parent, nn.MultiheadAttention):
                raise TypeError(
                    "nn.MultiheadAttention multiplies by its weights itself, so an adapter there would never run"
                )
            layer = target if isinstance(target, StructuneLayer) else _wrap(target, adapter_name)
            layer.add_adapter(adapter_name, peft_config.dropout, options, peft_config.inference_mode)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{current_key}: {error} (or leave this module out with exclude_modules, or override the option for it "
                "with its _pattern)"
            ) from error
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]
        cls, model: nn.Module, config: StructuneConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's mapping of a checkpoint's keys onto the model's, held against the adapter before it is loaded."""
        mapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        check_state_dict(model, adapter_name, mapped)
        return mapped


def stream_of(module_name: str) -> int:
    """The layer's own sequence of a seed: the first 8 bytes of its name's SHA-256, as int64.

    It is saved with the adapter, so a checkpoint does not depend on the name staying as it is.
    """
    return int.from_bytes(hashlib.sha256(module_name.encode()).digest()[:8], "little", signed=True)


def _wrap(target: nn.Module, adapter_name: str) -> StructuneLayer:
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    layer = layer_class(base)(target)
    layer._active_adapter = adapter_name
    return layer


def _withdraw(model: nn.Module, adapter_name: str) -> None:
    """Take a half-injected adapter out again."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, StructuneLayer) and adapter_name in layer.structune_delta:
            del layer.structune_delta[adapter_name], layer.structune_dropout[adapter_name]
            if not layer.structune_delta:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, layer.base_layer)
