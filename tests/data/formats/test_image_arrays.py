"""Images and labels in `npz` files, under the names that people give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structune.data.formats.image_arrays import read_image_arrays
from structune.data.table import Table
from structune.errors import UserError

IMAGES = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)


def read(path: Path, arrays: dict[str, Any], field: str = "train", image: str = "image", label: str = "label") -> Table:
    np.savez(path / "a.npz", **arrays)
    return read_image_arrays(path / "a.npz", field, image, label)


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("image", "label"), "train"), (("images", "labels"), "evaluation"), (("x_train", "y_train"), "train"),
        (("x_test", "y_test"), "evaluation"), (("train_images", "train_labels"), "train"),
        (("test_images", "test_labels"), "evaluation"), (("x", "y"), "train"), (("data", "labels"), "train"),
    ],
)  # fmt: skip
def test_usual_names_are_found(names: tuple[str, str], field: str, tmp_path: Path) -> None:
    table = read(tmp_path, {names[0]: IMAGES, names[1]: np.array([2, 0, 1])}, field)
    assert table.columns["label"] == ["2", "0", "1"]
    assert np.array_equal(np.asarray(table.columns["image"][1].rgb()), IMAGES[1])
    assert f"{names[0]}[1]" in str(table.columns["image"][1])


def test_each_part_of_a_file_is_its_own(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": np.array([0, 1, 0]), "x_test": IMAGES[:2], "y_test": np.array([5, 6])}
    assert read(tmp_path, arrays).columns["label"] == ["0", "1", "0"]
    assert read(tmp_path, arrays, "evaluation").columns["label"] == ["5", "6"]
    arrays |= {"x_val": IMAGES[:1], "y_val": np.array([7])}
    assert read(tmp_path, arrays, "evaluation").columns["label"] == ["7"]
    assert read(tmp_path, arrays, "test").columns["label"] == ["5", "6"]


def test_names_that_are_given_count(tmp_path: Path) -> None:
    table = read(
        tmp_path, {"pixels": IMAGES, "kind": np.array(["a", "b", "a"]), "x_train": IMAGES}, "train", "pixels", "kind"
    )
    assert table.columns["kind"] == ["a", "b", "a"]
    assert list(table.columns) == ["pixels", "kind"]


@pytest.mark.parametrize(
    ("labels", "more", "expected"),
    [
        (np.array([[1], [0], [1]]), {}, ["1", "0", "1"]),
        (np.array([1.0, 0.0, 1.0]), {}, ["1", "0", "1"]),
        (np.array([b"x", b"y", b"x"]), {}, ["x", "y", "x"]),
        (np.array([1, 0, 1]), {"label_names": np.array(["cat", "dog"])}, ["dog", "cat", "dog"]),
    ],
)
def test_labels_of_many_kinds(labels: Any, more: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, {"images": IMAGES, "labels": labels, **more}).columns["label"] == expected


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"pixels": IMAGES}, "holds no array 'image'; it has 'pixels'. Set data.image"),
        ({"image": IMAGES.transpose(0, 3, 1, 2)}, "3 × 3 × 4 × 5: channels come last.*moveaxis"),
        ({"image": IMAGES.reshape(3, -1)}, "is 3 × 60: give images × height × width"),
        ({"image": IMAGES / 255}, "holds float64: give uint8"),
        ({"image": IMAGES, "label": np.eye(3)}, r"is 3 × 3, beside 3 images: of columns of 0 and 1 save array.argmax"),
        ({"image": IMAGES, "label": np.array([1, 2])}, "is 2, beside 3 images"),
        ({"image": IMAGES, "label": np.array([0.5, 1, 2])}, "holds float64: give whole numbers or texts"),
        ({"image": IMAGES, "label": np.array([0, 1, 2]), "classes": np.array(["a", "b"])}, "but 2 classes are named"),
        ({"image": IMAGES, "label": np.array([0, "a", None], object)}, "it holds Python objects"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_fix(arrays: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        read(tmp_path, arrays)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "images.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"no such file \(did you mean 'images.npz'\?\)"):
        read_image_arrays(tmp_path / "image.npz", "train", "image", "label")
    with pytest.raises(UserError, match="cannot be read as an npz file"):
        read_image_arrays(tmp_path / "images.npz", "train", "image", "label")
