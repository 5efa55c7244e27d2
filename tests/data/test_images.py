"""Images of many kinds come out upright, in RGB of 8 bits; what is none is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from structune.data.image_cells import image_cells
from structune.data.images import ImageRef
from structune.data.table import Table
from structune.errors import UserError


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source: Any) -> np.ndarray[Any, Any]:
    image = ImageRef(source, "here").rgb()
    assert image.mode == "RGB"
    return np.asarray(image)


def colours(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_colours_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(Image.fromarray(colours())))
    assert np.array_equal(pixels(file), colours())
    assert np.array_equal(pixels(file.read_bytes()), colours())
    assert np.array_equal(pixels(colours()), colours())


def test_grey_becomes_three_equal_channels() -> None:
    grey = colours()[..., 0]
    for source in (encoded(Image.fromarray(grey)), grey, grey[..., None]):
        assert np.array_equal(pixels(source), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparency_shows_white(alpha: int) -> None:
    rgba = np.dstack([colours(), np.full((5, 7), alpha, np.uint8)])
    expected = colours() * (alpha / 255) + 255 * (1 - alpha / 255)
    for source in (encoded(Image.fromarray(rgba)), rgba):
        assert np.abs(pixels(source) - expected).max() <= 1
    palette = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    palette.putpalette([200, 0, 0])
    assert np.array_equal(pixels(encoded(palette, transparency=0)), np.full((2, 2, 3), 255))


def test_sixteen_bits_keep_their_upper_half() -> None:
    grey = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    assert pixels(encoded(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_the_print_colours_of_a_jpeg() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    red, green, blue = pixels(encoded(cmyk, "JPEG"))[4, 4]
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_that_was_turned(orientation: int) -> None:
    image = Image.fromarray(colours())
    exif = Image.Exif()
    exif[0x0112] = orientation
    # what is stored of an upright image by cameras that are turned so (Exif 2.32, tag 274)
    upright = colours()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    del image
    assert np.array_equal(pixels(encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)), upright)


def damaged() -> list[Any]:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)))
    return [
        (whole[: len(whole) // 2], "truncated"),
        (b"no image at all", "of no kind that Pillow knows"),
        (b"", "it is empty"),
        (encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "floating-point numbers"),
        (encoded(Image.fromarray(np.array([[70_000, 1]], np.int32)), "TIFF"), "numbers of 32 bits"),
    ]


@pytest.mark.parametrize(("content", "reason"), damaged())
def test_what_is_no_image_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=f"some.csv, line 7: cannot be read as an image .*{reason}"):
        ImageRef(content, "some.csv, line 7").rgb()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = ImageRef(tmp_path / "gone.png", "gone.png")
    for read in (gone.rgb, lambda: gone.digest):
        with pytest.raises(UserError, match="gone.png: cannot be read"):
            read()


def test_equal_images_have_equal_digests(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(colours()))
    (tmp_path / "a.png").write_bytes(content)
    assert ImageRef(content, "a").digest == ImageRef(tmp_path / "a.png", "b").digest
    assert ImageRef(content, "a").digest != ImageRef(content + b"x", "a").digest
    assert ImageRef(colours(), "a").digest != ImageRef(colours(1), "a").digest
    flat = np.zeros((2, 8), np.uint8)
    assert ImageRef(flat, "a").digest != ImageRef(flat.reshape(4, 4), "a").digest


class TestCells:
    """What a table's column of images may hold."""

    def of(self, cell: Any, source: str = "some.parquet") -> ImageRef:
        return image_cells(Table(source, {"image": [cell]}, [1], unit="row"), "image")[0]

    def test_all_kinds_give_the_same_pixels(self, tmp_path: Path) -> None:
        image = Image.fromarray(colours())
        content = encoded(image)
        file = tmp_path / "pictures" / "a.png"
        file.parent.mkdir()
        file.write_bytes(content)
        cells = [
            content, bytearray(content), {"bytes": content, "path": "a.png"}, {"bytes": None, "path": str(file)},
            str(file), file, image, colours(), colours().tolist(), ImageRef(content, "x"),
        ]  # fmt: skip
        for cell in cells:
            assert np.array_equal(np.asarray(self.of(cell).rgb()), colours())
        assert np.array_equal(np.asarray(self.of("pictures/a.png", str(tmp_path / "table.csv")).rgb()), colours())

    @pytest.mark.parametrize("cell", [7, 1.5, [[1.5, 2.0]], ["a"], {"x": 1}, [[300, 1]], [1, 2]])
    def test_what_is_none_is_refused_by_row(self, cell: Any) -> None:
        with pytest.raises(UserError, match=r"some.parquet, row 1: data.image = 'image' holds"):
            self.of(cell)

    def test_a_path_of_nothing_says_where_it_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"holds 'b.png', which is no file in '.*' nor in the current folder"):
            self.of("b.png", str(tmp_path / "table.csv"))
