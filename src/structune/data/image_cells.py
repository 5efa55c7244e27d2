"""A column of images in a table: whatever its cells hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from structune.data.images import ImageRef
from structune.data.table import Table
from structune.errors import UserError


def image_cells(table: Table, name: str) -> list[ImageRef]:
    """A column of images: files' bytes, paths, `{bytes, path}` as `datasets` stores them, pixels or images of Pillow.

    Paths are taken from the folder of the table's file, as in the `metadata.csv` of `imagefolder`, else from the
    current folder.

    Raises:
        UserError: there is no such column, or a cell is no image.
    """
    return [_as_ref(cell, table, name, row) for row, cell in enumerate(table.values(name, "image"))]


def _as_ref(cell: Any, table: Table, name: str, row: int) -> ImageRef:
    import numpy as np

    if isinstance(cell, ImageRef):
        return cell
    where = f"{table.source}, {table.places([row])}"
    content: Any
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (cell, None)
    if isinstance(content, (bytes, bytearray, memoryview)):
        return ImageRef(bytes(content), where)
    path = path if content is None else content
    if isinstance(path, (str, Path)):
        source = table.files[row] if table.files else table.source
        tried = [Path(source).parent / path, Path(path)]
        for file in tried:
            if file.is_file():
                return ImageRef(file, str(file))
        raise UserError(
            f"{where}: data.image = {name!r} holds {str(path)[:80]!r}, which is no file in "
            f"{str(tried[0].parent)!r} nor in the current folder. Give paths from the folder of the table's file."
        )
    pixels = np.asarray(content.convert("RGB") if hasattr(content, "convert") else content)
    if pixels.dtype == np.int64 and pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)  # lists of numbers, as JSON and Parquet have them
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise UserError(
            f"{where}: data.image = {name!r} holds {type(content).__name__}, which is no image. Give bytes of an image "
            f"file, a path, or pixels; or set data.image to another column."
        )
    return ImageRef(pixels, where)
