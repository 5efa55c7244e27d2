"""Arrays with a row for each example, made once and kept in a file of the user's cache folder.

A file is named after a hash of what it is made of. It is written whole or not at all, one process at a time, and read
as a memory map, so several processes share it. The oldest go where there are too many.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from structune.data.embedded import cache_folder

IN_FILES = 64 * 2**30  # bytes of all files of one kind together
_OF_FREE = 0.5  # of what is free on the disk
_OWN = re.compile(r"[0-9a-f]{32}\.npy")


def folder_of(kind: str) -> Path:
    """Where arrays of one kind are kept."""
    return cache_folder() / kind


def kept(kind: str, made_of: Iterable[str], count: int, rows: Callable[[], Iterator[NDArray[Any]]]) -> NDArray[Any]:
    """The array in its file, which is made if it is not there.

    Args:
        kind: the name of a folder.
        made_of: everything that decides what the rows are.
        count: how many rows there are.
        rows: makes them, all of one shape and type.

    Raises:
        OSError: it cannot be kept.
    """
    folder = folder_of(kind)
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.blake2b("\0".join(made_of).encode(), digest_size=16)
    file = folder / f"{key.hexdigest()}.npy"
    with FileLock(folder / f"{file.name}.lock"):
        found = _read(file, count)
        if found is None:
            _write(file, count, rows())
            found = _read(file, count)
        else:
            os.utime(file)
    if found is None:
        raise OSError(f"{file.name} cannot be read back")
    return found


def _read(file: Path, count: int) -> NDArray[Any] | None:
    try:
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.ndim and len(found) == count else None


def _write(file: Path, count: int, rows: Iterator[NDArray[Any]]) -> None:
    """The rows one after the other under a temporary name, then renamed. Whoever calls holds the file's lock."""
    first = next(rows)
    _make_room(file.parent, count * first.nbytes)
    for left in file.parent.glob(f".{file.name}.*"):  # of a process that was killed: nobody else writes this file
        left.unlink()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            header = {
                "descr": np.lib.format.dtype_to_descr(first.dtype),
                "fortran_order": False,
                "shape": (count, *first.shape),
            }
            np.lib.format.write_array_header_1_0(stream, header)
            for row in chain([first], rows):
                stream.write(row.tobytes())
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
