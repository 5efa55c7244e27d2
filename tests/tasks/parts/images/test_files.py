"""Images as files of a study: their names say what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from structune.data.images import ImageRef
from structune.tasks.parts.images.images import as_files


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("linked", [True, False])
def test_paths_are_the_same_wherever_they_lie_and_others_for_other_pixels(
    pixels: np.ndarray, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "mine.PNG"
    as_files([ImageRef(pixels, "")], tmp_path / "once")
    stored.write_bytes(next((tmp_path / "once").iterdir()).read_bytes())
    images = [ImageRef(pixels, ""), ImageRef(stored, ""), ImageRef(stored.read_bytes(), ""), ImageRef(255 - pixels, "")]
    if not linked:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError()))
    here, there = (as_files(images, tmp_path / place / "test-images") for place in ("here", "there"))
    assert here == there == as_files(images, tmp_path / "here" / "test-images")
    assert len(set(here)) == 4
    for path, image in zip(here, images, strict=True):
        again = ImageRef(tmp_path / "here" / path, "")
        assert np.array_equal(np.asarray(again.rgb()), np.asarray(image.rgb()))
    assert {Path(path).suffix for path in here} == {".png", ".PNG"}
