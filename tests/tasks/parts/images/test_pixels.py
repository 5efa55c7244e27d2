"""Two steps from an image to what the model reads: to the bit what the image processor of transformers makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from structune.errors import UserError
from structune.tasks.parts.images.pixels import Pixels, load_image_processor
from structune.tasks.parts.model_section import ModelSection

SMALL: dict[str, dict[str, Any]] = {
    "ViT": {"size": {"height": 24, "width": 24}},
    "Bit": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    "ConvNext": {"size": {"shortest_edge": 24}},
    "EfficientNet": {"size": {"height": 24, "width": 24}, "rescale_offset": True},
    "DeiT": {"size": {"height": 28, "width": 28}, "crop_size": {"height": 24, "width": 24}},
    "MobileViT": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    "CLIP": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "Siglip": {"size": {"height": 24, "width": 24}},
}
"""Settings of image processors that make 24 × 24."""


def photograph() -> Image.Image:
    """Smooth and busy parts, colours that differ; 61 × 43."""
    y, x = np.mgrid[0:43, 0:61]
    waves = [127 + 120 * np.sin(x / 3 + channel) * np.cos(y * x / 90 + channel) for channel in range(3)]
    noise = np.random.default_rng(0).integers(-7, 8, (43, 61, 3))
    return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", SMALL)
def test_both_steps_equal_the_processor(kind: str, tmp_path: Path) -> None:
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**SMALL[kind])
    expected = np.asarray(processor(images=photograph(), return_tensors="np")["pixel_values"])
    pixels = Pixels(processor)
    picture = pixels.picture(photograph())
    assert picture.shape == (24, 24, 3)
    assert len(np.unique(picture)) > 50
    assert np.array_equal(pixels.values(picture[None]), expected)


@pytest.mark.parametrize("kind", SMALL)
def test_another_size_cuts_off_the_same_margin(kind: str, tmp_path: Path) -> None:
    getattr(transformers, f"{kind}ImageProcessorPil")(**SMALL[kind]).save_pretrained(tmp_path)
    model_type = {"Bit": "dinov2", "DeiT": "vit"}.get(kind, kind.lower())  # of any configuration that loads
    transformers.AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    y, x = np.mgrid[0:43, 0:61]
    slope = Image.fromarray(np.stack([4 * x, 5 * y, 2 * (x + y)], -1).astype(np.uint8))
    larger = Pixels(load_image_processor(ModelSection(name=str(tmp_path)), 48)).picture(slope)
    own = Pixels(load_image_processor(ModelSection(name=str(tmp_path)))).picture(slope)
    assert larger.shape == (48, 48, 3)
    halved = larger.reshape(24, 2, 24, 2, 3).mean((1, 3))
    # the same part of the image at twice the size, of 255; with another margin it would be 4 or more
    assert np.abs(halved - own)[1:-1, 1:-1].mean() < 2.5


def test_proportions_are_kept_until_a_size_is_asked_for(tmp_path: Path) -> None:
    transformers.BitImageProcessorPil(size={"shortest_edge": 20}, do_center_crop=False).save_pretrained(tmp_path)
    transformers.Dinov2Config().save_pretrained(tmp_path)
    section = ModelSection(name=str(tmp_path))
    assert Pixels(load_image_processor(section)).picture(photograph()).shape == (20, 28, 3)
    assert Pixels(load_image_processor(section, 20)).picture(photograph()).shape == (20, 20, 3)


def test_what_does_more_than_resizing_is_refused() -> None:
    with pytest.raises(UserError, match="Siglip2ImageProcessorPil: "):
        Pixels(transformers.Siglip2ImageProcessorPil())

    class Inverts(transformers.ViTImageProcessorPil):
        def __call__(self, images: Any, **options: Any) -> Any:
            made = super().__call__(images, **options)
            if options.get("do_rescale", True) and options.get("do_resize", True):
                made["pixel_values"] = -made["pixel_values"]
            return made

    with pytest.raises(UserError, match="Inverts: does more to an image than resize"):
        Pixels(Inverts(size={"height": 8, "width": 8}))
