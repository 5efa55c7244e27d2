"""Images in folders: one folder for each class, named like it, as torchvision and `imagefolder` lay them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structune.data.images import ImageRef
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError

ENDINGS = frozenset(
    [
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
        ".pbm", ".pnm", ".avif", ".jp2", ".tga",
    ]
)  # fmt: skip
_PARTS = frozenset(
    [
        "train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing",
        "train_images", "test_images",
    ]
)  # fmt: skip


def read_image_folder(folder: Path, field: str, image: str, label: str) -> Table:
    """The columns `image` and, of a folder with a folder for each class, `label`: its name.

    Hidden files are passed over. A folder of images alone has no labels.

    Args:
        folder: holds the images.
        field: the recipe's field that names it, for messages.
        image: the name to give to the column of images.
        label: the name to give to the column of classes.

    Raises:
        UserError: there are no images, images beside folders or in folders of folders, or the folders are no classes.

    Warns:
        DataWarning: files that are no images by their endings.
    """
    where = f"data.{field} = {str(folder)!r}"
    files, folders = _listed(folder, where)
    if not folders:
        images = _images(files, where)
        if not images:
            raise UserError(f"{where}: holds no images; known endings: {', '.join(sorted(ENDINGS))}")
        return _table(folder, {image: [_ref(path) for path in images]})
    if {path.name.lower() for path in folders} <= _PARTS:
        names = [path.name for path in folders]
        train = next((name for name in names if name.lower().startswith("train")), names[0])
        held_out = next((name for name in names if name != train), None)
        also = "" if held_out is None else f" and data.evaluation: {folder / held_out}"
        raise UserError(
            f"{where}: its folders ({', '.join(map(repr, names))}) are parts of a data set, not classes. "
            f"Set data.train: {folder / train}{also}."
        )
    if beside := [path for path in files if path.suffix.lower() in ENDINGS]:
        raise UserError(
            f"{where}: {len(beside)} images ({beside[0].name!r}, ...) lie beside the folders of the classes "
            f"({folders[0].name!r}, ...). Move each into the folder of its class."
        )
    refs, labels = [], []
    for of_class in folders:
        inside, deeper = _listed(of_class, where)
        if deeper:
            raise UserError(
                f"{where}: {str(of_class)!r} holds folders ({deeper[0].name!r}, ...), so what its class is is not "
                f"clear. Put all images of a class into one folder."
            )
        found = _images(inside, where)
        if not found:
            raise UserError(f"{where}: the folder of the class {of_class.name!r} has no images: remove or fill it")
        refs += [_ref(path) for path in found]
        labels += [of_class.name] * len(found)
    return _table(folder, {image: refs, label: labels})


def _listed(folder: Path, where: str) -> tuple[list[Path], list[Path]]:
    """Files and folders in a folder by name, without hidden ones."""
    try:
        entries = sorted(
            (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name
        )
    except OSError as error:
        raise UserError(f"{where}: {str(folder)!r} cannot be read ({error.strerror})") from None
    folders = [path for path in entries if path.is_dir() and path.name != "__MACOSX"]
    return [path for path in entries if not path.is_dir()], folders


def _images(files: list[Path], where: str) -> list[Path]:
    images = [path for path in files if path.suffix.lower() in ENDINGS]
    if others := [path for path in files if path not in set(images)]:
        say([f"{where}: {len(others)} files are no images by their endings and are left out ({str(others[0])!r}, ...)"])
    return images


def _ref(path: Path) -> ImageRef:
    return ImageRef(path, str(path))


def _table(folder: Path, columns: dict[str, list[Any]]) -> Table:
    count = len(next(iter(columns.values())))
    return Table(str(folder), columns, list(range(1, count + 1)), unit="image")
