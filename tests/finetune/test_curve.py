"""The picture of a run's curve: runs elsewhere in the tests draw few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from structune.finetune.trainer.curve import draw_curve
from structune.palette import BLUE, VERMILION
from structune.tasks.task import Metric

SHARE = Metric("accuracy", "accuracy", percent=True, range=(0, 1))
ERROR = Metric("error", "error", greater_is_better=False)
HISTORY = [
    {"step": 2, "loss": 0.9},
    {"step": 2, "eval_accuracy": 0.25, "eval_error": 3.0},
    {"step": 4, "loss": 0.5},
    {"step": 4, "eval_accuracy": 0.75, "eval_error": 1.5},
]


def drawn(folder: Path, history: Any = HISTORY, metric: Metric = SHARE, chosen: int | None = None) -> Any:
    draw_curve(history, metric, "films: c3a", folder / "curve.png", chosen)
    with Image.open(folder / "curve.png") as image:
        assert image.size == (1500, 810)
        return np.asarray(image.convert("RGB")).astype(int)


def pixels(picture: Any, colour: str) -> Any:
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return np.argwhere((picture == wanted).all(-1))


@pytest.mark.parametrize("metric", [SHARE, ERROR])
def test_loss_falls_and_the_score_is_shown(metric: Metric, tmp_path: Path) -> None:
    picture = drawn(tmp_path, metric=metric)
    line = pixels(picture, BLUE)
    line = line[line[:, 1] > 150]  # without the axis's title
    assert line[line[:, 1].argmin(), 0] < line[line[:, 1].argmax(), 0] - 100
    assert len(pixels(picture, VERMILION)) > 500


def test_one_loss_is_a_point_and_the_chosen_score_is_marked(tmp_path: Path) -> None:
    one = pixels(drawn(tmp_path, HISTORY[:2]), BLUE)
    assert len(one[one[:, 1] > 150]) > 50
    assert (drawn(tmp_path, chosen=2) != drawn(tmp_path)).sum() > 100
    left = {step: (pixels(drawn(tmp_path, chosen=step), VERMILION)[:, 1] < 740).sum() for step in (2, 4)}
    assert left[2] > left[4] + 100  # its number stands at it
