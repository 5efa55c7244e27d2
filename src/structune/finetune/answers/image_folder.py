"""Images that a run answers with: a PNG file for each, in a folder beside the table that names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from structune.errors import UserError
from structune.files import new_folder


class ImageFolder:
    """Numbers images as they come.

    Args:
        folder: where they are written now.
        name: what it will be called, seen from the table.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.count = 0

    def put(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with the path of a file, from the table's folder, in place of each image."""
        return {key: self._file(value) if hasattr(value, "save") else value for key, value in row.items()}

    def _file(self, image: Any) -> str:
        self.count += 1
        name = f"{self.count:06}.png"
        image.save(self.folder / name)
        return f"{self.name}/{name}"


@contextmanager
def image_folder(table: Path, overwrite: bool) -> Iterator[ImageFolder]:
    """A folder named as the table is, without its ending; it is there at the end of the block, and not after an error.

    Args:
        table: the file that names the images.
        overwrite: whether images of the same names are replaced where the folder is there already.

    Raises:
        UserError: it is there, or cannot be written.
    """
    folder = table.with_suffix("")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
        raise UserError(
            f"--out {str(table)!r}: the images would go into {str(folder)!r}, which is there already; use --overwrite, "
            f"or choose another name"
        )
    try:
        with new_folder(folder) as temporary:
            yield ImageFolder(temporary, folder.name)
    except OSError as error:
        raise UserError(f"{str(folder)!r}: cannot be written ({error.strerror or error})") from None
