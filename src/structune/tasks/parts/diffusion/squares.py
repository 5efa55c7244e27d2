"""From an image of any size to the square that is learned, and what of it was seen."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def shape_of(image: Image.Image, size: int) -> tuple[int, ...]:
    """Original height and width, where the square begins in the resized image (top, left), and its height and width.

    As SDXL is told them (Podell et al. 2023, section 2.2).
    """
    width, height = _resized(image, size)
    return image.height, image.width, (height - size) // 2, (width - size) // 2, size, size


def square(image: Image.Image, size: int) -> Tensor:
    """The middle of the image, its shorter side resized to `size`: (3, size, size), from −1 to 1."""
    _, _, top, left, _, _ = shape_of(image, size)
    resized = image.resize(_resized(image, size), Image.Resampling.LANCZOS) if min(image.size) != size else image
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def _resized(image: Image.Image, size: int) -> tuple[int, int]:
    """Width and height with the shorter side `size`."""
    scale = size / min(image.size)
    return max(size, round(image.width * scale)), max(size, round(image.height * scale))
