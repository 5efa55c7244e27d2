"""The pictures of a data set, made once: in memory, or in a file of the user's cache folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structune.data.images import ImageRef
from structune.doubt import say
from structune.errors import UserError
from structune.tasks.parts.images.pixels import Pixels
from structune.tasks.parts.kept import folder_of, kept

Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]

IN_MEMORY = 2**30  # bytes of one part of the data; more goes into a file
_AT_ONCE = 256  # pictures


def pictures_of(images: Sequence[ImageRef], pixels: Pixels) -> Pictures:
    """The picture (height, width, 3) of each image, made now, or when it is asked for where there is no room.

    Raises:
        UserError: an image cannot be read, or its picture is of another size than the first.

    Warns:
        DataWarning: they are made anew in each epoch.
    """
    if not images:
        return []
    first = pixels.picture_of(images[0])
    size = len(images) * first.nbytes
    if size <= IN_MEMORY:
        made = np.empty((len(images), *first.shape), np.uint8)
        for row, picture in enumerate(_drawn(images, pixels, first)):
            made[row] = picture
        return made
    try:
        made_of = (pixels.key, *(image.digest for image in images))
        return kept("images", made_of, len(images), lambda: _drawn(images, pixels, first))
    except OSError as error:
        say(
            [
                f"the resized images take {size / 2**30:.1f} GiB, which cannot be kept in {str(folder_of('images'))!r} "
                f"({error.strerror or error}): they are made anew in each epoch, which is slow. Make room, or set "
                f"STRUCTUNE_CACHE to a folder on another disk."
            ]
        )
        return _WhenAsked(images, pixels, first)


class _WhenAsked(Sequence[NDArray[np.uint8]]):
    """Pictures that are made each time."""

    def __init__(self, images: Sequence[ImageRef], pixels: Pixels, first: NDArray[np.uint8]) -> None:
        self.images = images
        self.pixels = pixels
        self.first = first

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        return _alike(self.pixels.picture_of(self.images[row]), self.images[row], self.first)


def _drawn(images: Sequence[ImageRef], pixels: Pixels, first: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The pictures in order; decoding and resizing let other threads run."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            for image, picture in zip(some, pool.map(pixels.picture_of, some), strict=True):
                yield _alike(picture, image, first)


def _alike(picture: NDArray[np.uint8], image: ImageRef, first: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.shape != first.shape:
        raise UserError(
            f"{image.where}: becomes {picture.shape[1]} × {picture.shape[0]} pixels where the first image becomes "
            f"{first.shape[1]} × {first.shape[0]}: the model's processor keeps proportions. Set data.image_size, for "
            f"example to {min(first.shape[:2])}, for squares from the middle of each."
        )
    return picture
