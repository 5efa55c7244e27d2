"""Images with one label each: their columns, and where they lie."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from structune.data.formats.image_arrays import read_image_arrays
from structune.data.formats.image_folder import read_image_folder
from structune.data.image_cells import image_cells
from structune.data.images import ImageRef
from structune.data.section import DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.files import write_bytes


class ImageData(DataSection):
    """Where images and their labels are: a folder for each class, an `npz` file, a table, or the hub.

    `image` and `label` name columns, or arrays of an `npz` file. `image_size` is the side, in pixels, of the square
    that the model sees; by default its processor says.
    """

    image: str = "image"
    label: str = "label"
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None

    @model_validator(mode="after")
    def _no_sentences(self) -> ImageData:
        if self.embedded is not None:
            raise ValueError("the embedded data are sentences; give images with train or hub")
        return self

    def read(self, path: str | Path, field: str) -> Table | None:
        """A folder of images, or an `npz` file."""
        path = Path(path)
        if path.is_dir():
            return read_image_folder(path, field, self.image, self.label)
        if path.suffix.lower() == ".npz":
            return read_image_arrays(path, field, self.image, self.label)
        return None


def images_of(table: Table, data: ImageData) -> list[ImageRef]:
    """The column of images.

    Raises:
        UserError: it is missing, or a cell holds none.
    """
    return image_cells(table, data.image)


def image_groups(table: Table, data: ImageData, images: list[ImageRef]) -> list[str]:
    """The `group` column; without one, equal images are a group."""
    return [image.digest for image in images] if data.group is None else table.column(data.group, "group")


def refuse_unlabelled(table: Table, data: ImageData) -> None:
    """Raises `UserError` where a folder or file has images and no labels, in words of its kind."""
    if data.label in table or data.image not in table.columns:
        return
    path = Path(table.source)
    if path.is_dir():
        raise UserError(
            f"{table.source}: holds images and no folders, so their classes are not known. Put the images of each "
            f"class into a folder with its name."
        )
    if path.suffix.lower() == ".npz":
        raise UserError(f"{table.source}: holds no array of labels for {data.image!r}; set data.label to its name")


def image_lines(lines: Sequence[str], data: ImageData) -> Table:
    """A table with a row for each image of what is typed: a path of one, of a folder of them, or of an `npz` file.

    Raises:
        UserError: a folder or an `npz` file cannot be read.
    """
    found: list[Any] = []
    for line in lines:
        table = data.read(line, "images")
        found += [line] if table is None else table.columns[data.image]
    images = [
        str(cell.source) if isinstance(cell, ImageRef) and isinstance(cell.source, Path) else cell for cell in found
    ]
    return Table("what was given", {data.image: images}, list(range(1, len(images) + 1)), unit="image")


def as_files(images: Sequence[ImageRef], folder: Path) -> list[str]:
    """The path of each image as a table beside the folder has it: a file in the folder, named after its content.

    So the text of such a table says which images are meant, and is the same wherever it lies. Images that are files are
    linked where the disk can do it, else copied.
    """
    paths = []
    for image in images:
        source = image.source
        file = folder / f"{image.digest}{source.suffix if isinstance(source, Path) else '.png'}"
        paths.append(f"{folder.name}/{file.name}")
        if file.exists():
            continue
        if isinstance(source, Path) and _linked(source, file):
            continue
        write_bytes(file, _content(image))
    return paths


def _linked(source: Path, file: Path) -> bool:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.hardlink_to(source.resolve())
    except OSError:
        return False
    return True


def _content(image: ImageRef) -> bytes:
    if isinstance(image.source, Path):
        return image.source.read_bytes()
    if isinstance(image.source, bytes):
        return image.source
    stream = io.BytesIO()
    image.rgb().save(stream, "PNG")
    return stream.getvalue()
