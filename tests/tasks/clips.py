"""A CLIP of one layer for images and one for texts, and what it says of them one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import pipelines

if TYPE_CHECKING:
    from PIL.Image import Image


def save_tiny_clip(folder: Path) -> Path:
    """16 wide, for images of 16 × 16 pixels, with the tokenizer of the small pipelines."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    texts = pipelines.clip().config.to_dict()
    config = CLIPConfig(
        text_config={**texts, **layers}, vision_config={**layers, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    pipelines.tokenizer().save_pretrained(folder)
    return folder


def cosines(images: Sequence[Image], prompts: Sequence[str], folder: Path) -> list[float]:
    """Of each image and its prompt, in a loop over one at a time, in double precision."""
    from transformers import CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(folder).double().eval()
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(folder), pipelines.tokenizer()
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        pixels = processor(images=image, return_tensors="pt")["pixel_values"].double()
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            seen = model.visual_projection(model.vision_model(pixels).pooler_output)[0]
            said = model.text_projection(model.text_model(ids).pooler_output)[0]
        found.append(float(seen @ said / seen.norm() / said.norm()))
    return found
