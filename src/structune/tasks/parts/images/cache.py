"""The pictures of a data set, made once: in memory, or in a file of the user's cache folder.

A file is named after a hash of its images and of how they become pictures. It is written whole or not at all, one
process at a time, and read as a memory map, so several processes share it. The oldest go where there are too many.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from structune.data.embedded import cache_folder
from structune.data.images import ImageRef
from structune.doubt import say
from structune.errors import UserError
from structune.tasks.parts.images.pixels import Pixels

Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]

IN_MEMORY = 2**30  # bytes of one part of the data; more goes into a file
IN_FILES = 64 * 2**30  # bytes of all files together
_OF_FREE = 0.5  # of what is free on the disk
_OWN = re.compile(r"[0-9a-f]{32}\.npy")
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
    folder = cache_folder() / "images"
    try:
        return _kept(folder, images, pixels, first, size)
    except OSError as error:
        say(
            [
                f"the resized images take {size / 2**30:.1f} GiB, which cannot be kept in {str(folder)!r} "
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


def _kept(
    folder: Path, images: Sequence[ImageRef], pixels: Pixels, first: NDArray[np.uint8], size: int
) -> NDArray[np.uint8]:
    """The pictures in their file, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.blake2b("\0".join([pixels.key, *(image.digest for image in images)]).encode(), digest_size=16)
    file = folder / f"{key.hexdigest()}.npy"
    shape = (len(images), *first.shape)
    with FileLock(folder / f"{file.name}.lock"):
        found = _read(file, shape)
        if found is None:
            _make_room(folder, size)
            _write(file, shape, _drawn(images, pixels, first))
            found = _read(file, shape)
        else:
            os.utime(file)
    if found is None:
        raise OSError(f"{file.name} cannot be read back")
    return found


def _read(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        found: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def _write(file: Path, shape: tuple[int, ...], pictures: Iterator[NDArray[np.uint8]]) -> None:
    """The pictures one after the other under a temporary name, then renamed. Whoever calls holds the file's lock."""
    for left in file.parent.glob(f".{file.name}.*"):  # of a process that was killed: nobody else writes this file
        left.unlink()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for picture in pictures:
                stream.write(picture.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Remove the files that were not used for longest until `size` bytes fit; raises OSError where they cannot."""
    files = sorted(
        (path for path in folder.iterdir() if _OWN.fullmatch(path.name)), key=lambda path: path.stat().st_mtime
    )
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total + size <= IN_FILES and size <= _OF_FREE * shutil.disk_usage(folder).free:
            break
        total -= path.stat().st_size
        with suppress(OSError):  # read by another process, on Windows
            path.unlink()
        with suppress(OSError):
            path.with_name(f"{path.name}.lock").unlink()
    if size > IN_FILES:
        raise OSError(f"{IN_FILES / 2**30:.0f} GiB are kept at most")
    if size > _OF_FREE * shutil.disk_usage(folder).free:
        raise OSError("that is more than half of what is free on its disk")


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
