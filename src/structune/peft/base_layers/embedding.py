"""Embeddings: rows of ΔW are looked up, and only these are built where the family can."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from structune.peft.layer import StructuneLayer


class StructuneEmbedding(StructuneLayer):
    """nn.Embedding: y = W[x] with W (num_embeddings, embedding_dim), and classes that scale it by `embed_scale`.

    Tokens cannot be dropped, so dropout does nothing here.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Embedding,)
    drops_inputs: ClassVar[bool] = False
    does: ClassVar[str] = "look rows up"

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
        """ΔW[x], times the base layer's `embed_scale` if it has one."""
        rows = self.delta(adapter_name).lookup(x)
        scale: Tensor | None = self._get_embed_scale()  # type: ignore[no-untyped-call]
        return rows if scale is None else rows * scale.to(rows.dtype)

    def plain_output(self, base_layer: Any, x: Tensor) -> Tensor:
        """W[x], times `embed_scale` where there is one."""
        rows = nn.functional.embedding(x, base_layer.weight)
        scale = getattr(base_layer, "embed_scale", 1.0)
        return rows * (scale.to(rows.dtype) if isinstance(scale, Tensor) and scale.numel() == 1 else scale)

    def example(self) -> Tensor:
        """Some rows' numbers."""
        return torch.arange(min(len(self.get_base_weight()), 3))[None]
