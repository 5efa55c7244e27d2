"""The transformer of Flux, which reads pictures as a row of patches of 2 × 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser, Texts

GUIDANCE = 3.5
"""What a model that guidance was distilled into is told while it is trained."""


class Flux(Denoiser):
    """`FluxTransformer2DModel`."""

    class_name: ClassVar[str] = "FluxTransformer2DModel"
    multiple: ClassVar[int] = 2

    @property
    def reader(self) -> tuple[str, int | None]:
        return "tokenizer_2", self.options.get("max_sequence_length", 512)

    def texts(self, pipeline: Any, captions: Sequence[str], device: str) -> dict[str, Tensor]:
        told, pooled, _ = pipeline.encode_prompt(list(captions), None, device=device, **self.options)
        return {"encoder_hidden_states": told, "pooled_projections": pooled}

    def inputs(self, noisy: Tensor, times: Tensor, texts: Texts, shapes: Tensor) -> dict[str, Any]:
        count, _, height, width = noisy.shape
        guided = {"guidance": torch.full((count,), GUIDANCE)} if self.config.get("guidance_embeds") else {}
        return {
            "hidden_states": self.packed(noisy),
            "timestep": times / 1000,
            "txt_ids": torch.zeros(texts["encoder_hidden_states"].shape[1], 3),
            "img_ids": _places(height // 2, width // 2),
            **guided,
            **texts,
        }

    def packed(self, pictures: Tensor) -> Tensor:
        """(N, C, height, width) as (N, height/2 · width/2, 4 C): of each patch, channel by channel, its rows."""
        count, channels, height, width = pictures.shape
        patches = pictures.reshape(count, channels, height // 2, 2, width // 2, 2)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, (height // 2) * (width // 2), 4 * channels)


def _places(height: int, width: int) -> Tensor:
    """0, row and column of each patch, (height · width, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
