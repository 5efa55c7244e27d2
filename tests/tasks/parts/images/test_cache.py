"""Pictures are made once, kept whole or not at all, and are the same wherever they are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BitImageProcessorPil, ViTImageProcessorPil

from structune.data.images import ImageRef
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.tasks.parts import kept as kept_arrays
from structune.tasks.parts.images import cache as image_cache
from structune.tasks.parts.images.cache import pictures_of
from structune.tasks.parts.images.pixels import Pixels


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("STRUCTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "IN_MEMORY", 0)


def images(count: int = 7, seed: int = 0) -> list[ImageRef]:
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 12, 9, 3)).astype(np.uint8)
    return [ImageRef(array, f"image {number}") for number, array in enumerate(drawn)]


def pixels(side: int = 8) -> Pixels:
    return Pixels(ViTImageProcessorPil(size={"height": side, "width": side}))


def expected(count: int = 7, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.stack([pixels().picture(image.rgb()) for image in images(count, seed)])


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def test_a_little_stays_in_memory(folder: Path) -> None:
    assert np.array_equal(pictures_of(images(), pixels()), expected())
    assert not folder.exists()
    assert len(pictures_of([], pixels())) == 0


@pytest.mark.usefixtures("in_files")
def test_more_goes_into_a_file_that_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "_AT_ONCE", 3)
    made = pictures_of(images(), pixels())
    assert isinstance(made, np.memmap) and np.array_equal(made, expected())
    assert len(kept(folder)) == 1 and not list(folder.glob(".*"))
    monkeypatch.setattr(image_cache, "_drawn", None)  # would fail if it was called
    assert np.array_equal(pictures_of(images(), pixels()), expected())
    monkeypatch.undo()


@pytest.mark.usefixtures("in_files")
def test_other_images_another_order_and_another_size_have_files_of_their_own(folder: Path) -> None:
    for some, how in (
        (images(), pixels()),
        (images(seed=1), pixels()),
        (images()[::-1], pixels()),
        (images(), pixels(4)),
    ):
        pictures_of(some, how)
    assert len(kept(folder)) == 4


@pytest.mark.usefixtures("in_files")
def test_a_damaged_file_is_made_anew(folder: Path) -> None:
    pictures_of(images(), pixels())
    file = kept(folder)[0]
    file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(pictures_of(images(), pixels()), expected())


@pytest.mark.usefixtures("in_files")
def test_an_image_that_cannot_be_read_leaves_no_file(folder: Path) -> None:
    with pytest.raises(UserError, match="bad.png, row 3: cannot be read as an image"):
        pictures_of([*images(), ImageRef(b"nothing", "bad.png, row 3")], pixels())
    assert not kept(folder) and not [path for path in folder.glob(".*") if path.stat().st_size]


@pytest.mark.usefixtures("in_files")
def test_the_files_that_were_not_used_for_longest_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = folder / "notes.npy"
    for seed in range(3):
        pictures_of(images(seed=seed), pixels())
    foreign.write_text("somebody's")
    files = kept(folder)
    size = next(path for path in files if path != foreign).stat().st_size
    for age, seed in enumerate((1, 0, 2)):  # 0 was made first, and used after 1
        pictures_of(images(seed=seed), pixels())
        newest = max((path for path in files if path != foreign), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (1_000_000 + age, 1_000_000 + age))
    monkeypatch.setattr(kept_arrays, "IN_FILES", 3 * size + 10)
    before = {path: path.stat().st_mtime for path in files if path != foreign}
    pictures_of(images(seed=9), pixels())
    gone = [path for path in before if not path.exists()]
    assert gone == [min(before, key=lambda path: before[path])]
    assert foreign.exists()


@pytest.mark.usefixtures("in_files")
def test_without_room_they_are_made_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_arrays, "IN_FILES", 10)
    with pytest.warns(DataWarning, match="made anew in each epoch"):
        made = pictures_of(images(), pixels())
    assert np.array_equal(np.stack([made[row] for row in range(len(made))]), expected())
    assert not kept(folder)


def test_pictures_of_several_sizes_are_refused_with_the_fix() -> None:
    processor = BitImageProcessorPil(size={"shortest_edge": 8}, do_center_crop=False)
    wide = ImageRef(np.zeros((10, 30, 3), np.uint8), "wide.png")
    with pytest.raises(UserError, match="wide.png: becomes 24 × 8 pixels where .* 8 × 10.*data.image_size.* 8"):
        pictures_of([*images(), wide], Pixels(processor))


@pytest.mark.usefixtures("in_files")
def test_two_at_a_time_make_it_once_and_read_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, made = image_cache._drawn, []

    def slowly(*arguments: Any) -> Iterator[Any]:
        made.append(1)
        for picture in drawn(*arguments):
            time.sleep(0.02)
            yield picture

    monkeypatch.setattr(image_cache, "_drawn", slowly)
    # each call opens the lock's file anew, as another process would
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: pictures_of(images(), pixels()), range(3)))
    assert all(np.array_equal(pictures, expected()) for pictures in found)
    assert len(made) == 1
    assert len(kept(folder)) == 1
