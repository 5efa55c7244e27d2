"""What is drawn and told of classes: whole pictures for few and many of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from structune.tasks.parts.classes.report import class_details, draw_classes

NAMES = ["a $name$ of dollars", "b" * 60, "c\nd"]


def logits_of(classes: int, examples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, examples)
    logits = rng.normal(size=(examples, classes))
    logits[np.arange(examples), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3, 16, 40])
def test_figures_are_pictures_with_something_on_them(classes: int, tmp_path: Path) -> None:
    names = [*NAMES, *map(str, range(classes))][:classes]
    drawn = draw_classes(*logits_of(classes), names, tmp_path)
    assert [path.name for path in drawn] == ["confusion.png", "calibration.png"]
    for path in drawn:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) >= 600
        assert 0.02 < (pixels < 200).mean() < 0.7


def test_nothing_wrong_among_many_classes_is_drawn_too(tmp_path: Path) -> None:
    labels = np.arange(40)
    assert len(draw_classes(np.eye(40) * 9, labels, [str(n) for n in labels], tmp_path)) == 2


def test_details_by_hand() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]))
    details = class_details(logits, np.array([0, 1, 1, 1]), ["no", "yes"])
    assert details["classes"]["no"] == {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "examples": 1}
    # two answers of 0.8, one right; one of 0.6 and one of 0.9, both right
    assert details["expected_calibration_error"] == pytest.approx((2 * 0.3 + 0.4 + 0.1) / 4)
    assert sum(row["examples"] for row in details["calibration"]) == 4
