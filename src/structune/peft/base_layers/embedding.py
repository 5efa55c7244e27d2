"""Embeddings: rows of ΔW are looked up, and only these are built where the family can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from structune.peft.layer import StructuneLayer
from structune.peft.own_forward import redefines


class _Scaled(nn.Embedding):
    """As Bart and others write it."""

    embed_scale: float

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embed_scale


class _ScaledInItsDtype(nn.Embedding):
    """As Gemma writes it."""

    embed_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embed_scale.to(self.weight.dtype)


class StructuneEmbedding(StructuneLayer):
    """nn.Embedding: y = W[x] with W (num_embeddings, embedding_dim), and classes that scale it by one `embed_scale`.

    Tokens cannot be dropped, so dropout does nothing here.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Embedding,)
    drops_inputs: ClassVar[bool] = False
    does: ClassVar[str] = "look rows up"
    known_forwards: ClassVar[tuple[Callable[..., Any], ...]] = (_Scaled.forward, _ScaledInItsDtype.forward)

    def add_adapter(self, adapter_name: str, dropout: float, options: dict[str, Any], inference_mode: bool) -> None:
        """See `StructuneLayer.add_adapter`.

        Raises:
            TypeError: the embedding has max_norm.
        """
        if (max_norm := getattr(self.get_base_layer(), "max_norm", None)) is not None:
            raise TypeError(
                f"max_norm={max_norm} changes the rows of the weight whenever they are looked up, frozen or not: set "
                "the embedding's max_norm to None first"
            )
        super().add_adapter(adapter_name, dropout, options, inference_mode)

    def features(self) -> tuple[int, int]:
        """(num_embeddings, embedding_dim)."""
        rows, cols = self.get_base_weight().shape
        return rows, cols

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW itself."""
        return delta

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """ΔW[x], times `embed_scale` where the base layer's class is one that scales."""
        rows = self.delta(adapter_name).lookup(x)
        if not redefines(self.get_base_layer(), nn.Embedding):
            return rows
        scale: Tensor | None = self._get_embed_scale()  # type: ignore[no-untyped-call]
        return rows if scale is None else rows * scale.to(rows.dtype)

    def example(self) -> Tensor:
        """Some rows' numbers, one for each sample."""
        return torch.arange(min(len(self.get_base_weight()), 3))[:, None]

    def _knows(self, base: nn.Module, parent: type[nn.Module]) -> bool:
        """See `StructuneLayer._knows`; other scales than numbers are not."""
        scale = getattr(base, "embed_scale", None)
        number = isinstance(scale, int | float) or (isinstance(scale, Tensor) and scale.numel() == 1)
        return number and super()._knows(base, parent)
