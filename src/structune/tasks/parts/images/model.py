"""Models of transformers that classify images, with a head for the classes at hand."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModelForImageClassification

from structune.errors import UserError
from structune.tasks.parts.classes.classification import class_options
from structune.tasks.parts.images.pixels import Pixels, load_image_processor
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.pretrained import load_pretrained
from structune.tasks.task import Base, Targets

_ADAPTED = (nn.Linear, nn.Conv2d)
USUAL_LAYERS: tuple[tuple[str, ...], ...] = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("projection_query", "projection_value"),
    ("qkv",),
    ("pwconv1", "pwconv2"),
    ("expand_conv", "project_conv", "top_conv"),
)
"""Layers to adapt: the attention's query and value, as architectures call them; of ConvNets the pointwise convolutions.

ViT, DINOv2, DeiT, BEiT, Swin, CLIP, SigLIP; Swin v2, MobileViT, PVT; CvT; Hiera; ConvNeXt; EfficientNet.
"""


def usual_layers(model: nn.Module) -> list[str] | None:
    """The first of `USUAL_LAYERS` that the model has; None where it has none."""
    there = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, _ADAPTED)}
    return next((list(names) for names in USUAL_LAYERS if there.issuperset(names)), None)


def load_image_model(section: ModelSection, targets: Targets, seed: int, size: int | None, **options: Any) -> Base:
    """A pretrained model, with its image processor, that reads the pictures which that gives.

    Args:
        section: which model.
        targets: the names of the classes, for the head.
        seed: of the head.
        size: the side of the square that it is to read; None: what its processor says.
        options: more arguments of `from_pretrained`, instead of those for a head of the classes' size.

    Raises:
        UserError: there is no such model, it is of another kind, or it does not read pictures of that size.
    """
    processor = load_image_processor(section, size)
    head = options or {**class_options(targets), "problem_type": "single_label_classification"}
    model, modules = load_pretrained(AutoModelForImageClassification, section, seed, **head)
    if (channels := getattr(model.config, "num_channels", 3)) != 3:
        raise UserError(f"model.name = {section.name!r}: reads images of {channels} channels; structune gives it 3")
    shape = Pixels(processor).picture(Image.new("RGB", (64, 64))).shape
    _fit(model, shape[:2], section, size)
    return Base(model, processor, modules)


def hold_statistics(model: nn.Module) -> None:
    """Let batch normalisation use the statistics that it was pretrained with.

    They are no trained numbers: no adapter holds them, so a model that changed them would not be the one that is saved.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def interpolates(model: Any) -> bool:
    """Whether the pretrained model reads pictures of another size only if it is told to interpolate its positions."""
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def _fit(model: Any, shape: Sequence[int], section: ModelSection, size: int | None) -> None:
    """See that the model reads pictures of that height and width; resize its position embeddings if that is asked for.

    Raises:
        UserError: it does not.
    """
    if _side(model) == tuple(shape):
        return
    reason = _refusal(model, shape)
    if reason and size is not None and _resize_positions(model, shape):
        reason = _refusal(model, shape)
    if not reason:
        return
    what = f"reads no pictures of {shape[1]} × {shape[0]} pixels ({reason})"
    if size is None:
        raise UserError(
            f"model.name = {section.name!r}: {what}, which is what its image processor gives. Set data.image_size, "
            f"for example to {shape[0]}: its position embeddings are resized then."
        )
    own = _side(model)
    raise UserError(
        f"data.image_size = {size}: model.name = {section.name!r} {what}. Leave image_size out, or take a multiple of "
        f"its patches{f'; it was pretrained on {own[1]} × {own[0]}' if own else ''}."
    )


def _side(model: Any) -> tuple[int, int] | None:
    """The height and width that the configuration says."""
    said = getattr(model.config, "image_size", None)
    if isinstance(said, int):
        return said, said
    return (int(said[0]), int(said[1])) if isinstance(said, (list, tuple)) and len(said) == 2 else None


def _refusal(model: Any, shape: Sequence[int]) -> str:
    """What the model says of such a picture; nothing if it reads it."""
    try:
        with torch.inference_mode():
            model.eval()(pixel_values=torch.zeros(1, 3, *shape))
    except (ValueError, RuntimeError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return ""


def _resize_positions(model: Any, shape: Sequence[int]) -> bool:
    """Replace learned position embeddings by those that the model itself interpolates; whether there are any."""
    height, width = shape
    found = False
    for module in list(model.modules()):
        positions = getattr(module, "position_embeddings", None)
        if not isinstance(positions, nn.Parameter) or not hasattr(module, "interpolate_pos_encoding"):
            continue
        patch = module.patch_size if isinstance(module.patch_size, (list, tuple)) else (module.patch_size,) * 2
        before = module.patch_embeddings.num_patches
        patches = (height // patch[0]) * (width // patch[1])
        tokens = positions.shape[1] - before + patches  # what is no patch, such as the class token, has a position too
        if height % patch[0] or width % patch[1]:
            return False
        with torch.no_grad():
            resized = module.interpolate_pos_encoding(positions.new_zeros(1, tokens, positions.shape[2]), height, width)
        module.position_embeddings = nn.Parameter(resized.detach().clone())
        module.patch_embeddings.num_patches = patches
        found = True
    if found:
        for module in model.modules():
            if isinstance(getattr(module, "image_size", None), (tuple, list)):
                module.image_size = (height, width)
        model.config.image_size = height if height == width else [height, width]
    return found
