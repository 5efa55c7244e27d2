"""From an image to the numbers that a model reads, in two steps, exactly as its image processor does it.

1. The picture: resized and cropped, uint8. It is worth keeping, and what may be varied for training.
2. A number for each of its values, by channel: table[channel, value], which is the processor's rescaling and
   normalising, whatever they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor

from structune.data.images import ImageRef
from structune.errors import UserError
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.pretrained import load_processor

_STILL = {"do_rescale": False, "do_normalize": False, "include_top": False}  # the last: EfficientNet's second division
_TOLERANCE = 1e-5


def load_image_processor(section: ModelSection, size: int | None = None) -> BaseImageProcessor:
    """A model's image processor, which needs Pillow and no torchvision.

    Args:
        section: which model.
        size: the side of the square that it gives; None: what it says itself.

    Raises:
        UserError: there is none, or it cannot give images of that size.
    """
    processor: BaseImageProcessor = load_processor(AutoImageProcessor, section, backend="pil")
    if size is None:
        return processor
    options = sizes_for(processor.to_dict(), size)
    processor = load_processor(AutoImageProcessor, section, backend="pil", **options)
    got = Pixels(processor).picture(Image.new("RGB", (size + 9, 2 * size))).shape[:2]
    if got != (size, size):
        raise UserError(
            f"data.image_size = {size}: {type(processor).__name__} of model.name = {section.name!r} gives {got[1]} × "
            f"{got[0]} with {options}; leave image_size out, and set the size in its preprocessor_config.json"
        )
    return processor


def sizes_for(settings: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Settings of an image processor that gives squares of another size, with the same margin cut off around them."""
    before, crop = dict(settings.get("size") or {}), dict(settings.get("crop_size") or {})
    crops = bool(settings.get("do_center_crop")) and bool(crop)
    side = crop.get("height", size) if crops else None
    scaled = {
        key: round(value * size / side) if side else size
        for key, value in before.items()
        if value and key in ("height", "width", "shortest_edge")
    }
    options: dict[str, Any] = {"do_resize": True, "size": scaled or {"height": size, "width": size}}
    # the shortest edge alone leaves oblongs, unless the processor cuts them itself, as ConvNeXt's does
    if crops or ("shortest_edge" in scaled and "crop_pct" not in settings):
        options |= {"do_center_crop": True, "crop_size": {"height": size, "width": size}}
    return options


class Pixels:
    """The two steps of one image processor.

    Raises:
        UserError: it does something else to images than resize, crop, rescale and normalise.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._still = {key: value for key, value in _STILL.items() if key.startswith("do_") or hasattr(processor, key)}
        name = type(processor).__name__
        try:
            self.table = self._table()
            probe = _probe()
            expected = np.asarray(processor(images=probe, return_tensors="np")["pixel_values"])
            found = self.values(self.picture(probe)[None])
            alike = expected.shape == found.shape and bool(np.abs(expected - found).max() <= _TOLERANCE)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UserError(f"image processor {name}: {error}; structune cannot use it") from None
        if not alike:
            raise UserError(
                f"image processor {name}: does more to an image than resize, crop, rescale and normalise it, which is "
                f"what structune can do; take another model"
            )

    @property
    def key(self) -> str:
        """What decides how a picture is made, as text: settings, and who resizes."""
        versions = {"pillow": PIL.__version__, "transformers": transformers.__version__}
        return json.dumps([self.processor.to_dict(), versions], sort_keys=True, default=str)

    def picture(self, image: Image.Image) -> NDArray[np.uint8]:
        """The image as the model sees it: (height, width, 3), uint8."""
        made = self.processor(images=image, return_tensors="np", **self._still)["pixel_values"][0]
        if made.dtype != np.uint8 or made.ndim != 3 or made.shape[0] != 3:
            raise ValueError(f"gives {made.dtype} of shape {made.shape} where 3 channels of uint8 were expected")
        return np.ascontiguousarray(made.transpose(1, 2, 0))

    def picture_of(self, image: ImageRef) -> NDArray[np.uint8]:
        """The same of an image that is to be read. Raises `UserError`, naming it, where it cannot be."""
        opened = image.rgb()
        try:
            return self.picture(opened)
        except ValueError as error:
            raise UserError(f"{image.where}: {opened.width} × {opened.height} pixels: {error}") from None

    def values(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model reads, (N, 3, height, width), of pictures (N, height, width, 3)."""
        count, height, width, channels = pictures.shape
        values = np.empty((count, channels, height, width), np.float32)
        for channel in range(channels):
            # clip: every uint8 is an index, and NumPy writes into `out` without a copy only if it need not look
            np.take(self.table[channel], pictures[..., channel], out=values[:, channel], mode="clip")
        return values

    def _table(self) -> NDArray[np.float32]:
        """What becomes of each value in each channel: (3, 256)."""
        ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        kept = ("do_rescale", "do_normalize", "do_convert_rgb")
        off = {key: False for key in self.processor.to_dict() if key.startswith("do_") and key not in kept}
        values = self.processor(images=Image.fromarray(ramp), return_tensors="np", **off)["pixel_values"]
        return np.asarray(values, np.float32).reshape(3, 256)


def _probe() -> Image.Image:
    """An oblong of many colours, to compare on."""
    rows, columns, channels = np.indices((37, 53, 3))
    return Image.fromarray(((rows * 31 + columns * 17 * (channels + 1) + rows * columns) % 256).astype(np.uint8))
