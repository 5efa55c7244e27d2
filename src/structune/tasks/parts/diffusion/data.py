"""Images and their captions: where they lie, and images of a subject's class beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from structune.data.captioned_folder import read_captioned_folder
from structune.data.formats.image_arrays import read_image_arrays
from structune.data.formats.image_folder import read_image_folder
from structune.data.formats.text import lines_of
from structune.data.image_cells import image_cells
from structune.data.images import ImageRef
from structune.data.section import DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.paths import FilePath


class CaptionedImages(DataSection):
    """Where images and their captions are: a folder, a table, an `npz` file, or the hub.

    In a folder captions are in `metadata.jsonl`, `.csv` or `.parquet`, in a text file beside each image, or are the
    names of folders. A folder of images alone has the one caption `prompt`, as in DreamBooth ("a photo of sks dog");
    then `class_images`, a folder of other images of its kind, and `class_prompt` ("a photo of a dog") keep what the
    model knows of the kind. `image`, `caption` and, to predict, `seed` name columns. `image_size` is the side, in
    pixels, of the square that is learned; by default the pipeline says.
    """

    file_keys: ClassVar[tuple[str, ...]] = (*DataSection.file_keys, "class_images")

    image: str = "image"
    caption: str = "text"
    seed: str = "seed"
    prompt: str | None = None
    class_images: FilePath | None = None
    class_prompt: str | None = None
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> CaptionedImages:
        if self.embedded is not None:
            raise ValueError("the embedded data are sentences; give images with train or hub")
        if (self.class_images is None) != (self.class_prompt is None):
            given, other = "class_images", "class_prompt"
            if self.class_images is None:
                given, other = other, given
            raise ValueError(f"{given} goes with {other}; give both, or neither")
        return self

    def read(self, path: str | Path, field: str) -> Table | None:
        """A folder of images, an `npz` file, or a text file with a prompt on each line."""
        path = Path(path)
        if path.is_dir():
            return read_captioned_folder(path, field, self.image, self.caption)
        if path.suffix.lower() == ".npz":
            return read_image_arrays(path, field, self.image, self.caption)
        prompts = lines_of(path)
        return None if prompts is None else Table(str(path), {self.caption: [*prompts.values()]}, [*prompts])


def captions_of(table: Table, data: CaptionedImages) -> list[str]:
    """The caption of each row: the column's, or `prompt` for all where there is none.

    Raises:
        UserError: there is neither, or both.
    """
    if data.prompt is None:
        if data.caption not in table and data.image in table:
            raise UserError(
                f"{table.source}: has images and no captions (no column {data.caption!r}). Give data.prompt, one "
                f"caption for all, such as 'a photo of sks dog'; or a caption for each, in metadata.csv or in a text "
                f"file beside."
            )
        return [" ".join(text.split()) for text in table.column(data.caption, "caption")]
    if data.caption in table:
        raise UserError(
            f"data.prompt = {data.prompt!r}: {table.source} has a caption for each image (data.caption = "
            f"{data.caption!r}); remove prompt"
        )
    return [data.prompt] * len(table)


def images_of(table: Table, data: CaptionedImages) -> list[ImageRef]:
    """The column of images. Raises `UserError` where it is missing, or a cell holds none."""
    return image_cells(table, data.image)


def class_images(data: CaptionedImages) -> list[ImageRef]:
    """Images of the subject's class; none where the recipe names none.

    Raises:
        UserError: the folder has none, or folders.
    """
    if data.class_images is None:
        return []
    table = read_image_folder(Path(data.class_images), "class_images", "image", "label")
    if "label" in table:
        raise UserError(f"data.class_images = {data.class_images!r}: holds folders; put all its images into one")
    return list(table.columns["image"])


def digest_of(images: Sequence[ImageRef]) -> str:
    """A hash of images, whatever their order."""
    return hashlib.blake2b("".join(sorted(image.digest for image in images)).encode(), digest_size=8).hexdigest()


def prompt_lines(lines: Sequence[str], data: CaptionedImages) -> Table:
    """A table with a row for each prompt; empty lines are passed over."""
    kept = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    return Table("what was given", {data.caption: [line for _, line in kept]}, [number for number, _ in kept])


def seeds_of(table: Table, data: CaptionedImages) -> list[int | None]:
    """The seed of each row's image, where there is such a column.

    Raises:
        UserError: one is no whole number from 0 on.
    """
    if data.seed not in table:
        return [None] * len(table)
    return [_seed(cell, table, row, data.seed) for row, cell in enumerate(table.values(data.seed, "seed"))]


def _seed(cell: Any, table: Table, row: int, name: str) -> int:
    text = str(cell).strip()
    if not text.isdecimal() or int(text) >= 2**63:
        raise UserError(
            f"data.seed = {name!r}: {table.source}, {table.places([row])}: {text[:40]!r} is no whole number from 0 to "
            f"2**63 - 1; change it, or name another column"
        )
    return int(text)
