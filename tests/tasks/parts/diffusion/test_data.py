"""Images and captions as people have them, and what is refused, by name and with the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from structune.data import sources
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.tasks.parts.diffusion.data import CaptionedImages
from structune.tasks.text_to_image import TextToImage

TASK = TextToImage()


def draw(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (red, 0, 0)).save(path)


def read(given: Path, **options: Any) -> list[tuple[str, int]]:
    """Caption and redness of each example."""
    data = CaptionedImages(train=str(given), **options)
    examples = TASK.examples(sources.load_tables(data).train, data)
    images = examples.labels or []
    return [
        (text, image.rgb().getpixel((0, 0))[0]) for text, image in zip(examples.inputs["caption"], images, strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images: 10 red, and 20."""
    draw(tmp_path / "images" / "a.png", 10)
    draw(tmp_path / "images" / "b.png", 20)
    return tmp_path / "images"


EXPECTED = [("one bird", 10), ("two birds", 20)]


def by_lines(folder: Path) -> None:
    rows = [{"file_name": "a.png", "text": "one  bird"}, {"file_name": "b.png", "text": "two birds"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_table(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\na.png,one bird\nb.png,two birds\n")


def by_texts(folder: Path) -> None:
    (folder / "a.txt").write_text("one bird\n")
    (folder / "b.txt").write_text("two\nbirds")


def by_folders(folder: Path) -> None:
    for name, caption in (("a.png", "one bird"), ("b.png", "two birds")):
        (folder / caption).mkdir()
        (folder / name).rename(folder / caption / name)


@pytest.mark.parametrize("write", [by_lines, by_table, by_texts, by_folders])
def test_captions_in_a_folder(write: Callable[[Path], None], folder: Path) -> None:
    write(folder)
    assert read(folder) == EXPECTED
    with pytest.raises(UserError, match="data.prompt = 'a bird': .* has a caption for each image .*; remove prompt"):
        read(folder, prompt="a bird")


def test_captions_in_tables_and_arrays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,said\nimages/a.png,one bird\nimages/b.png,two birds\n")
    assert read(tmp_path / "table.csv", image="file", caption="said") == EXPECTED
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    pixels[0, ..., 0], pixels[1, ..., 0] = 10, 20
    np.savez(tmp_path / "arrays.npz", image=pixels, text=np.array(["one bird", "two birds"]))
    assert read(tmp_path / "arrays.npz") == EXPECTED


def test_one_caption_for_all(folder: Path) -> None:
    assert read(folder, prompt="a photo of sks bird") == [("a photo of sks bird", 10), ("a photo of sks bird", 20)]
    with pytest.raises(UserError, match=r"has images and no captions \(no column 'text'\)\. Give data\.prompt"):
        read(folder)


def test_what_a_folder_lacks(folder: Path) -> None:
    (folder / "a.txt").write_text("one bird")
    with pytest.raises(UserError, match=r"1 of 2 images have no text file beside them \('b.txt'"):
        read(folder)
    (folder / "b.txt").write_text(" ")
    with pytest.raises(UserError, match=r"the caption 'b.txt': the file is empty"):
        read(folder)
    (folder / "metadata.csv").write_text("name,text\na.png,one bird\n")
    with pytest.raises(UserError, match=r"metadata.csv has no column 'file_name'"):
        read(folder)
    (folder / "metadata.csv").write_text("file_name,text\nc.png,one bird\n")
    with pytest.raises(UserError, match=r"line 2: data.image = 'image' holds 'c.png', which is no file"):
        read(folder)
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one bird"}\n')
    with pytest.raises(
        UserError, match="holds metadata.jsonl and metadata.csv, and which has the captions is not clear"
    ):
        read(folder)


def test_images_of_the_class(folder: Path, tmp_path: Path) -> None:
    """Their number and content are among the targets, so a resumed run knows that they changed."""
    draw(tmp_path / "others" / "1.png", 30)

    def targets(**options: Any) -> Any:
        data = CaptionedImages(train=str(folder), prompt="sks bird", **options)
        return TASK.targets(TASK.examples(sources.load_tables(data).train, data), data, "here")

    assert targets() == {"prompts": ["sks bird"]}
    of_class = {"class_images": str(tmp_path / "others"), "class_prompt": "a bird"}
    one = targets(**of_class)
    assert one["class_images"].startswith("1 images, hash ")
    assert TASK.about(one) == "1 class images"
    draw(tmp_path / "others" / "1.png", 31)
    assert targets(**of_class) != one
    draw(tmp_path / "others" / "inner" / "1.png", 30)
    (tmp_path / "others" / "1.png").unlink()
    with pytest.raises(UserError, match="data.class_images = .*: holds folders; put all its images into one"):
        targets(**of_class)
    for given in ({"class_images": "others"}, {"class_prompt": "a bird"}):
        with pytest.raises(ValueError, match="goes with class_.*; give both, or neither"):
            CaptionedImages(train="here", **given)


def test_prompts_of_samples_and_lines(folder: Path) -> None:
    by_texts(folder)
    data = CaptionedImages(train=str(folder))
    examples = TASK.examples(sources.load_tables(data).train, data)
    assert TASK.targets(examples, data, "here")["prompts"] == ["one bird", "two birds"]
    few = TextToImage.model_validate({"samples": {"count": 1}})
    assert few.targets(examples, data, "here")["prompts"] == ["one bird"]
    own = TextToImage.model_validate({"samples": {"prompts": ["a roof"]}})
    assert own.targets(examples, data, "here")["prompts"] == ["a roof"]
    typed = TASK.from_lines(["a bird ", "", "a roof"], data)
    assert typed.columns == {"text": ["a bird", "a roof"]}
    assert typed.lines == [1, 3]


@pytest.mark.parametrize(
    ("times", "steps", "expected"),
    [(3, 10, [0, 5, 10]), (1, 10, [10]), (2, 10, [0, 10]), (0, 10, []), (4, 10, [0, 3, 7, 10])],
)
def test_when_samples_are_drawn(times: int, steps: int, expected: list[int]) -> None:
    assert TextToImage.model_validate({"samples": {"times": times}}).shown_at(steps) == expected


@pytest.mark.parametrize("prompt", [None, "a bird"])
def test_written_examples_are_read_again(prompt: str | None, folder: Path, tmp_path: Path) -> None:
    """Images that are no files become some."""
    if prompt is None:
        by_texts(folder)
    data = CaptionedImages(train=str(folder), prompt=prompt)
    examples = TASK.examples(sources.load_tables(data).train, data)
    file = TASK.write(examples, tmp_path / "part", data)
    again = read(file, prompt=prompt)
    assert again == (EXPECTED if prompt is None else [("a bird", 10), ("a bird", 20)])


def test_few_held_out_images_say_little(folder: Path) -> None:
    by_texts(folder)
    data = CaptionedImages(train=str(folder))
    examples = TASK.examples(sources.load_tables(data).train, data)
    (doubt,) = TASK.doubts(examples, examples.subset([0]), data)
    assert doubt.startswith("1 of 3 images are held out")


def test_files_that_are_no_images(folder: Path) -> None:
    (folder / "notes.md").write_text("birds")
    with pytest.warns(DataWarning, match=r"1 files are no images by their endings .*notes\.md"):
        assert len(read(folder, prompt="a bird")) == 2
