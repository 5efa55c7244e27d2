"""The layers of a base model, known from its configuration alone: no weight is read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from structune.errors import UserError
from structune.peft.base_layers import layer_class
from structune.tasks.parts.pretrained import EMBEDDED_HUB_NAME, embedded_folder


class Backbone:
    """A model without its task head, or with it, on the meta device.

    Args:
        name: what the model is called.
        model: the model.
    """

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name, self.model = name, model

    @classmethod
    def named(cls, name: str, revision: str | None = None) -> Backbone:
        """A model of transformers, without its task head.

        Args:
            name: `embedded`, a local folder with a config.json, or an id on the hub.
            revision: of a hub model.

        Raises:
            UserError: the model's configuration cannot be had.
        """
        options: dict[str, Any] = {} if revision is None else {"revision": revision}
        try:
            config = AutoConfig.from_pretrained(_source(name), **options)
            with torch.device("meta"):
                return cls(name, AutoModel.from_config(config))
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"base model {name!r}: its configuration cannot be had ({reason}). The sizes of the adapted layers are "
                f"read from it: name a local folder that holds its config.json, or its id on the hub, with --base"
            ) from None

    def features(self, module: str) -> tuple[int, int]:
        """(out_features, in_features) of a layer, by its name in the model with or without a task head.

        Raises:
            UserError: the model has no such layer, or it is of a type that cannot be adapted.
        """
        prefix = getattr(self.model, "base_model_prefix", "")
        try:
            layer: nn.Module = self.model.get_submodule(module.removeprefix(f"{prefix}."))
            return layer_class(layer)(layer).features()
        except (AttributeError, TypeError) as error:
            raise UserError(
                f"base model {self.name!r}: has no layer {module!r} that an adapter fits ({error}); "
                f"name the model that the adapter was trained on with --base"
            ) from None


def _source(name: str) -> str:
    """Where the configuration lies. The embedded model is also on the hub, in case its package is not installed."""
    if name == "embedded":
        return str(embedded_folder())
    if name == EMBEDDED_HUB_NAME:
        try:
            return str(embedded_folder())
        except UserError:
            return name
    return name
