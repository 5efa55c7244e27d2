"""Embeddings: rows of ΔW are looked up, and only these are built where the family can."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from structune.peft.layer import StructuneLayer


class StructuneEmbedding(StructuneLayer):
    """nn.Embedding: y = W[x] with W (num_embeddings, embedding_dim), and classes that scale it by `embed_scale`.

    Tokens cannot be dropped, so dropout does nothing here.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Embedding,)
    drops_inputs: ClassVar[bool] = False

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
