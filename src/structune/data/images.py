"""An image, wherever it lies: opened when it is needed, upright, in RGB."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class ImageRef:
    """An image that is read anew each time.

    Args:
        source: a file; the bytes of one; or pixels, uint8, (height, width) or (height, width, 1, 3 or 4).
        where: what messages call it.
    """

    source: Path | bytes | NDArray[Any]
    where: str

    def __str__(self) -> str:
        return self.where

    @cached_property
    def digest(self) -> str:
        """A hash of what it is made of: equal for equal files and equal pixels.

        Raises:
            UserError: its file cannot be read.
        """
        hashed = hashlib.blake2b(digest_size=16)
        if isinstance(self.source, Path):
            hashed.update(self._bytes(self.source))
        elif isinstance(self.source, bytes):
            hashed.update(self.source)
        else:
            hashed.update(repr(self.source.shape).encode() + self.source.tobytes())
        return hashed.hexdigest()

    def rgb(self) -> Image:
        """The image as it is to be seen: turned as its camera says, transparency on white, in RGB.

        Raises:
            UserError: it is no image, damaged, or its pixels are no colours of 8 or 16 bits.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        raw = self._bytes(self.source) if isinstance(self.source, Path) else self.source
        try:
            if isinstance(raw, bytes):
                opened: Image.Image = Image.open(io.BytesIO(raw))
                opened.load()
            else:
                opened = Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw)
            return _rgb(ImageOps.exif_transpose(opened))
        except Image.DecompressionBombError as error:
            raise UserError(f"{self.where}: {error}; make it smaller") from None
        except Exception as error:  # noqa: BLE001  (decoders raise whatever their format suggests)
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = "its bytes are of no kind that Pillow knows" if raw else "it is empty"
            raise UserError(
                f"{self.where}: cannot be read as an image ({reason}). Replace it, or remove it from the data."
            ) from None

    def _bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.where}: cannot be read ({error.strerror})") from None


def _rgb(image: Image) -> Image:
    """The colours in RGB of 8 bits; of 16 bits the upper half is kept, where Pillow alone would cut to white."""
    import numpy as np
    from PIL import Image as pil

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, not colours: save it with 8 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError("its pixels are numbers of 32 bits, not colours: save it with 8 bits a channel")
        image = pil.fromarray((pixels >> 8).astype(np.uint8))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = pil.new("RGBA", image.size, (255, 255, 255, 255))
        image = pil.alpha_composite(white, image)
    return image.convert("RGB")
