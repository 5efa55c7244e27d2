"""UNets of Stable Diffusion 1 and 2 and, with pooled texts and sizes of images beside, of SDXL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser, Texts


class UNet(Denoiser):
    """`UNet2DConditionModel`."""

    class_name: ClassVar[str] = "UNet2DConditionModel"

    @property
    def is_told_sizes(self) -> bool:
        """As SDXL is."""
        return bool(self.config.get("addition_embed_type") == "text_time")

    def doubts(self) -> str:
        for key, usual in (
            ("addition_embed_type", (None, "text_time")),
            ("class_embed_type", (None,)),
            ("encoder_hid_dim_type", (None,)),
            ("num_class_embeds", (None,)),
        ):
            if (value := self.config.get(key)) not in usual:
                return f"its {key} is {value!r}"
        channels, out = self.config["in_channels"], self.config["out_channels"]
        return (
            "" if channels == out else f"it reads {channels} channels and predicts {out}, as one that fills in images"
        )

    def texts(self, pipeline: Any, captions: Sequence[str], device: str) -> dict[str, Tensor]:
        if not self.is_told_sizes:
            return {"encoder_hidden_states": pipeline.encode_prompt(list(captions), device, 1, False)[0]}
        told, _, pooled, _ = pipeline.encode_prompt(list(captions), device=device, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": told, "text_embeds": pooled}

    @property
    def adapted_texts(self) -> tuple[str, ...]:
        return "q_proj", "v_proj"

    def encoded(self, encoders: Sequence[Any], ids: Sequence[Tensor]) -> dict[str, Tensor]:
        if not self.is_told_sizes:
            return {"encoder_hidden_states": encoders[0](ids[0])[0]}
        said = [encoder(tokens, output_hidden_states=True) for encoder, tokens in zip(encoders, ids, strict=True)]
        last = torch.cat([each.hidden_states[-2] for each in said], -1)
        return {"encoder_hidden_states": last, "text_embeds": said[-1][0]}

    def inputs(self, noisy: Tensor, times: Tensor, texts: Texts, shapes: Tensor) -> dict[str, Any]:
        inputs = {"sample": noisy, "timestep": times, "encoder_hidden_states": texts["encoder_hidden_states"]}
        if not self.is_told_sizes:
            return inputs
        return {
            **inputs,
            "added_cond_kwargs": {"text_embeds": texts["text_embeds"], "time_ids": shapes.to(noisy.dtype)},
        }
