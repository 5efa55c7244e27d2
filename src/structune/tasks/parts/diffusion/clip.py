"""How well images go with their prompts, as a CLIP model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from structune.errors import UserError
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.pretrained import load_pretrained, load_processor

if TYPE_CHECKING:
    from PIL.Image import Image


class Clip(NamedTuple):
    """A CLIP model with what makes its inputs."""

    model: Any
    tokenizer: Any
    processor: Any


def load_clip(name: str) -> Clip:
    """The CLIP model of a folder or of the hub, in fp32, on the CPU.

    Raises:
        UserError: there is no such model, or it is no CLIP.
    """
    section = ModelSection(name=name)
    model: Any
    try:
        model, _ = load_pretrained(CLIPModel, section, seed=0, with_its_head="its similarity would mean nothing")
        tokenizer = load_processor(AutoTokenizer, section)
        processor = load_processor(AutoImageProcessor, section, backend="pil")
    except UserError:
        raise UserError(
            f"task.clip = {name!r}: no CLIP model can be loaded from there; give one's id on the hub (network needed), "
            f"or a folder that its save_pretrained wrote"
        ) from None
    return Clip(model.eval(), tokenizer, processor)


@torch.no_grad()
def similarity(images: Sequence[Image], prompts: Sequence[str], clip: Clip) -> float:
    """The mean cosine of each image's and its prompt's embedding (Radford et al. 2021), from −1 to 1.

    What is longer than the model reads of a prompt is cut.
    """
    longest = clip.model.config.text_config.max_position_embeddings
    pixels = clip.processor(images=list(images), return_tensors="pt")["pixel_values"]
    words = clip.tokenizer(list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    said = clip.model(pixel_values=pixels, input_ids=words["input_ids"], attention_mask=words["attention_mask"])
    return float(torch.cosine_similarity(said.image_embeds, said.text_embeds).mean())
