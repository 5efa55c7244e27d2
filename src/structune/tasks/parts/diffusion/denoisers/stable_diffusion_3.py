"""The transformer of Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser, Texts


class StableDiffusion3(Denoiser):
    """`SD3Transformer2DModel`."""

    class_name: ClassVar[str] = "SD3Transformer2DModel"

    @property
    def reader(self) -> tuple[str, int | None]:
        return "tokenizer_3", self.options.get("max_sequence_length", 256)

    def texts(self, pipeline: Any, captions: Sequence[str], device: str) -> dict[str, Tensor]:
        told, _, pooled, _ = pipeline.encode_prompt(
            list(captions), None, None, device=device, do_classifier_free_guidance=False, **self.options
        )
        return {"encoder_hidden_states": told, "pooled_projections": pooled}

    def inputs(self, noisy: Tensor, times: Tensor, texts: Texts, shapes: Tensor) -> dict[str, Any]:
        return {"hidden_states": noisy, "timestep": times, **texts}
