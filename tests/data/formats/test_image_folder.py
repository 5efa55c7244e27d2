"""A folder of images for each class, and what is refused of folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from structune.data.formats.image_folder import read_image_folder
from structune.data.table import Table
from structune.doubt import DataWarning
from structune.errors import UserError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).suffix in (".png", ".JPG"):
            Image.new("RGB", (2, 2)).save(folder / name)
        else:
            (folder / name).write_text("x")
    return folder


def read(folder: Path) -> Table:
    return read_image_folder(folder, "train", "image", "label")


def test_the_folders_are_the_classes(tmp_path: Path) -> None:
    table = read(make(tmp_path, "cat/2.png", "cat/1.JPG", "big dog/1.png", ".git/x.png", "cat/.DS_Store"))
    assert table.columns["label"] == ["big dog", "cat", "cat"]
    assert [str(image.source.relative_to(tmp_path)) for image in table.columns["image"]] == [
        "big dog/1.png",
        "cat/1.JPG",
        "cat/2.png",
    ]


def test_a_folder_of_images_alone_has_no_labels(tmp_path: Path) -> None:
    assert list(read(make(tmp_path, "1.png", "2.png")).columns) == ["image"]


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="1 files are no images by their endings and are left out .*notes.txt"):
        assert len(read(make(tmp_path, "a/1.png", "a/notes.txt", "b/1.png"))) == 2


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train/a/1.png", "test/a/1.png"], r"parts .*Set data.train: \S*train and data.evaluation: \S*test"),
        (["train/a/1.png"], r"parts of a data set, not classes. Set data.train: \S*train\."),
        (["a/1.png", "b/1.png", "2.png"], "1 images .*'2.png'.* lie beside the folders"),
        (["a/x/1.png", "b/1.png"], "holds folders .'x'"),
        (["a/1.png", "b/.hidden"], "the folder of the class 'b' has no images"),
        ([".hidden"], "holds no images"),
    ],
)  # fmt: skip
def test_what_is_no_folder_for_each_class_is_refused(names: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        read(make(tmp_path, *names))
