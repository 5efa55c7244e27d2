"""Images of prompts, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from structune.tasks.parts.diffusion.pipeline import Pipeline, silent
from structune.tasks.parts.diffusion.settings import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image


def images_of(
    prompts: Sequence[str], seeds: Sequence[int], model: nn.Module, pipeline: Pipeline, settings: Sampling, size: int
) -> Iterator[Image]:
    """An image of each prompt, by its seed; no more than one is in memory.

    Text encoders and VAE are loaded when the first is asked for, and go with the last.

    Args:
        prompts: of the images.
        seeds: of their noise, which is drawn on the CPU: the same everywhere.
        model: what `Pipeline.load_model` gave, adapted or not, where it works.
        pipeline: whose it is.
        settings: steps and guidance.
        size: the side of the images.
    """
    device = next(model.parameters()).device
    assembled = pipeline.for_images(model).to(device)
    options = {
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "height": size,
        "width": size,
    }
    for prompt, seed in zip(prompts, seeds, strict=True):
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad(), silent():
            made = assembled(prompt, generator=noise, **options, **pipeline.denoiser.options).images
        yield made[0]
