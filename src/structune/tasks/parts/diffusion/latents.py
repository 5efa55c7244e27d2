"""What is computed once of images and captions: latents, and what text encoders say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from structune.data.images import ImageRef
from structune.doubt import say
from structune.tasks.parts.diffusion.pipeline import Pipeline, silent
from structune.tasks.parts.diffusion.squares import shape_of, square
from structune.tasks.parts.diffusion.with_text_encoders import WithTextEncoders
from structune.tasks.parts.kept import folder_of, kept

FEW = 64
"""Images or captions of which each run computes anew what it needs; of more it is kept in a file."""

_AT_ONCE = 4


def working_device() -> str:
    """Where what is computed once is computed."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def latents_of(images: Sequence[ImageRef], pipeline: Pipeline, size: int) -> NDArray[Any]:
    """A row for each image, with the fields `latents`, (channels, side, side), and `shape`, (6,), in float32.

    Latents are those of the square of `squares.square`, scaled as the denoiser sees them; they are the means of what
    the VAE says, not draws. `shape` is that of `squares.shape_of`.

    Raises:
        UserError: an image cannot be read.
    """
    made_of = [pipeline.identity("vae"), str(size), *(image.digest for image in images)]
    return _once("latents", made_of, len(images), lambda: _latents(images, pipeline, size))


def texts_of(captions: Sequence[str], pipeline: Pipeline, model: nn.Module) -> NDArray[Any]:
    """A row for each caption, with the fields that `Denoiser.texts` gives, in float32.

    Where text encoders are trained it has the fields of `Pipeline.ids` instead.
    """
    if isinstance(model, WithTextEncoders):
        tokens = {name: ids.numpy() for name, ids in pipeline.ids(captions).items()}
        return np.stack([_row({name: ids[row] for name, ids in tokens.items()}) for row in range(len(captions))])
    parts = sorted(name for name in pipeline.index if name.startswith(("text_encoder", "tokenizer")))
    made_of = [pipeline.identity(*parts), repr(pipeline.denoiser.options), *captions]
    return _once("texts", made_of, len(captions), lambda: _texts(captions, pipeline, model))


def _once(kind: str, made_of: Sequence[str], count: int, rows: Callable[[], Iterator[NDArray[Any]]]) -> NDArray[Any]:
    if count <= FEW:
        return np.stack(list(rows()))
    try:
        return kept(kind, made_of, count, rows)
    except OSError as error:
        say(
            [
                f"the {kind} of {count:,} examples cannot be kept in {str(folder_of(kind))!r} "
                f"({error.strerror or error}): they are in memory, and are computed anew by each run. Make room, or "
                f"set STRUCTUNE_CACHE to a folder on another disk."
            ]
        )
        return np.stack(list(rows()))


@torch.no_grad()
def _latents(images: Sequence[ImageRef], pipeline: Pipeline, size: int) -> Iterator[NDArray[Any]]:
    device = working_device()
    vae = pipeline.load_vae().to(device)
    for start in range(0, len(images), _AT_ONCE):
        opened = [image.rgb() for image in images[start : start + _AT_ONCE]]
        squares = torch.stack([square(image, size) for image in opened])
        latents = scaled(vae.encode(squares.to(device)).latent_dist.mode(), vae.config)
        for image, latent in zip(opened, latents.float().cpu().numpy(), strict=True):
            yield _row({"latents": latent, "shape": np.array(shape_of(image, size), np.float32)})


def scaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Latents of a VAE as denoisers see them: shifted and scaled as its configuration says."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        mean, deviation = (torch.tensor(each, device=latents.device).view(1, -1, 1, 1) for each in (mean, deviation))
        return (latents - mean) * config["scaling_factor"] / deviation
    return (latents - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]


@torch.no_grad()
def _texts(captions: Sequence[str], pipeline: Pipeline, model: nn.Module) -> Iterator[NDArray[Any]]:
    device = working_device()
    assembled = pipeline.texts(model)
    for name, part in assembled.components.items():
        if isinstance(part, nn.Module) and name != pipeline.part:  # the denoiser stays where it is
            part.to(device)
    for start in range(0, len(captions), _AT_ONCE):
        with silent():
            told = pipeline.denoiser.texts(assembled, captions[start : start + _AT_ONCE], device)
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in told.items()}
        for place in range(len(captions[start : start + _AT_ONCE])):
            yield _row({name: array[place] for name, array in arrays.items()})


def _row(fields: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """One row of an array with these fields."""
    row = np.empty((), [(name, value.dtype, value.shape) for name, value in fields.items()])
    for name, value in fields.items():
        row[name] = value
    return row
