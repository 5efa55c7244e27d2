"""Images as arrays in an `npz` file of NumPy, such as those of CIFAR, Keras and MedMNIST."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.data.images import ImageRef
from structune.data.table import Table
from structune.errors import UserError
from structune.section import closest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TO_TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"))
_VALIDATION = (("x_val", "y_val"), ("val_images", "val_labels"))
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"))
_ANY = (("images", "labels"), ("x", "y"), ("image", "label"), ("data", "labels"))
_NAMES = ("label_names", "class_names", "classes", "names")


def read_image_arrays(path: Path, field: str, image: str, label: str) -> Table:
    """The columns `image` and, if there are labels, `label`.

    The arrays are those of these names. If there is none named `image`, they are looked for under the usual ones:
    x_train and y_train, train_images and train_labels for examples to train on, the same with `val` and `test` for
    others, then images and labels, x and y. Names of classes are taken from label_names, class_names, classes or names.

    Args:
        path: the file.
        field: the recipe's field that names it, which says which part of a file that holds several is meant.
        image: the array of images, uint8 (N, height, width) or (N, height, width, 1, 3 or 4), and the column's name.
        label: the array of labels, whole numbers or texts, (N,) or (N, 1), and the column's name.

    Raises:
        UserError: the file cannot be read, has no such arrays, or they are of another shape or type.
    """
    import numpy as np

    where = f"data.{field} = {str(path)!r}"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = _found(arrays.files, field, image, label, where)
            pixels = arrays[names[0]]
            labels = arrays[names[1]] if names[1] in arrays.files else None
            classes = next((arrays[name] for name in _NAMES if name in arrays.files and name not in names), None)
    except UserError:
        raise
    except FileNotFoundError:
        near = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"{where}: no such file{closest(path.name, near)}") from None
    except Exception as error:  # noqa: BLE001  (zip and NumPy raise many kinds)
        python = "Object arrays" in str(error)
        fix = "save its labels as numbers or texts of NumPy" if python else "get it anew"
        reason = "it holds Python objects" if python else " ".join(str(error).split())
        raise UserError(f"{where}: cannot be read as an npz file ({reason}); {fix}") from None
    _check_pixels(pixels, f"{where}: the array {names[0]!r}")
    columns: dict[str, list[Any]] = {
        image: [ImageRef(pixels[row], f"{path}, {names[0]}[{row}]") for row in range(len(pixels))]
    }
    if labels is not None:
        columns[label] = _labels(labels, len(pixels), classes, f"{where}: the array {names[1]!r}")
    return Table(str(path), columns, list(range(1, len(pixels) + 1)), unit="row")


def _found(there: list[str], field: str, image: str, label: str, where: str) -> tuple[str, str]:
    """The names of the arrays of images and labels."""
    if image in there:
        return image, label
    parts = {"train": _TO_TRAIN, "evaluation": (*_VALIDATION, *_TEST)}.get(field, _TEST)
    for names in (*parts, *_ANY) if image == "image" else ():
        if names[0] in there:
            return names[0], names[1] if label == "label" else label
    listed = ", ".join(map(repr, there))
    raise UserError(
        f"{where}: holds no array {image!r}{closest(image, there)}; it has {listed}. "
        f"Set data.image and data.label to the arrays of images and labels."
    )


def _check_pixels(pixels: NDArray[Any], where: str) -> None:
    shape = " × ".join(map(str, pixels.shape))
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3, 4) and pixels.shape[3] not in (1, 3, 4):
        raise UserError(f"{where} is {shape}: channels come last here; save numpy.moveaxis(array, 1, -1)")
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4)):
        raise UserError(
            f"{where} is {shape}: give images × height × width, or images × height × width × 1, 3 or 4 channels; "
            f"reshape it"
        )
    if pixels.dtype != "uint8":
        raise UserError(
            f"{where} holds {pixels.dtype}: give uint8, from 0 to 255; of numbers from 0 to 1 save "
            f"(array * 255).round().astype('uint8')"
        )


def _labels(labels: NDArray[Any], count: int, classes: NDArray[Any] | None, where: str) -> list[str]:
    import numpy as np

    shape = " × ".join(map(str, labels.shape))
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras and MedMNIST keep them
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != count:
        one_hot = labels.ndim == 2 and len(labels) == count
        fix = "of columns of 0 and 1 save array.argmax(1)" if one_hot else "save one label for each image"
        raise UserError(f"{where} is {shape}, beside {count} images: {fix}")
    if labels.dtype.kind in "US":
        return [value.decode() if isinstance(value, bytes) else str(value) for value in labels.tolist()]
    if labels.dtype.kind == "f" and bool(np.all(labels == np.round(labels))):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise UserError(f"{where} holds {labels.dtype}: give whole numbers or texts")
    numbers = labels.tolist()
    if classes is None:
        return [str(number) for number in numbers]
    known = [value.decode() if isinstance(value, bytes) else str(value) for value in classes.tolist()]
    if min(numbers, default=0) < 0 or max(numbers, default=0) >= len(known):
        raise UserError(f"{where} goes from {min(numbers)} to {max(numbers)}, but {len(known)} classes are named")
    return [known[number] for number in numbers]
