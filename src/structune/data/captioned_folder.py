"""Images in a folder with their captions: in a table beside them, or in a text file beside each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from structune.data.formats.image_folder import ENDINGS, read_image_folder
from structune.data.formats.text import decode
from structune.data.images import ImageRef
from structune.data.reading import read_table
from structune.data.table import Table
from structune.errors import UserError

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The tables that the `imagefolder` of `datasets` reads beside images."""

_FILE = "file_name"


def read_captioned_folder(folder: Path, field: str, image: str, caption: str) -> Table:
    """The column `image` and, where there are captions, `caption`.

    A folder of one of these forms, in this order:

    - a table `metadata.jsonl`, `.csv` or `.parquet` with the columns `file_name` and `caption`, as `datasets` has it;
    - `bird.txt` beside `bird.png`, for every image;
    - a folder of images for each caption, named like it;
    - images alone.

    Raises:
        UserError: it is none of these, or lacks something; the message names it.
    """
    where = f"data.{field} = {str(folder)!r}"
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    if tables := [name for name in TABLES if name in names]:
        if len(tables) > 1:
            raise UserError(f"{where}: holds {' and '.join(tables)}, and which has the captions is not clear; keep one")
        return _by_table(folder / tables[0], field, image, where)
    images = [folder / name for name in names if Path(name).suffix.lower() in ENDINGS]
    texts = [path.with_suffix(".txt") for path in images]
    there = [path for path in texts if path.is_file()]
    if not there:
        return read_image_folder(folder, field, image, caption)
    if missing := [path.name for path in texts if not path.is_file()]:
        raise UserError(
            f"{where}: {len(missing)} of {len(images)} images have no text file beside them ({missing[0]!r}, ...), and "
            f"the others have; write their captions, or take the images out"
        )
    return Table(
        str(folder),
        {image: [ImageRef(path, str(path)) for path in images], caption: [_caption(path, where) for path in texts]},
        list(range(1, len(images) + 1)),
        unit="image",
    )


def _by_table(path: Path, field: str, image: str, where: str) -> Table:
    table = read_table(path, field)
    if image in table.columns:
        return table
    if _FILE not in table.columns:
        raise UserError(f"{where}: {path.name} has no column {_FILE!r} that names the images; add it")
    columns: dict[str, list[Any]] = {image if name == _FILE else name: cells for name, cells in table.columns.items()}
    return replace(table, columns=columns)


def _caption(path: Path, where: str) -> str:
    return " ".join(decode(path.read_bytes(), f"{where}: the caption {path.name!r}").split())
