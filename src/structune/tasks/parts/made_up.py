"""Examples of nothing: texts, classes and pictures that are made up, to try a recipe without its data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structune.data.images import ImageRef

_WORDS = ("bird", "sang", "over", "every", "roof", "again", "while", "rain", "fell", "on", "green", "hills")
_CLASSES = ("first", "second", "third")


def made_up_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of a few words, no two the same."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(_WORDS, k=rng.randint(2, 5)))} {number}" for number in range(count)]


def made_up_classes(count: int) -> list[str]:
    """Names of three classes, in turn."""
    return [_CLASSES[number % len(_CLASSES)] for number in range(count)]


def made_up_label_lists(count: int, names: Sequence[str] | None) -> list[list[str]]:
    """Of each example some of the names, three by default; each name occurs, and some have none."""
    known = list(names or _CLASSES)
    return [[known[number // 2 % len(known)]] if number % 2 else [] for number in range(count)]


def made_up_images(count: int) -> list[ImageRef]:
    """Noise of 32 × 32 pixels."""
    import numpy as np

    from structune.data.images import ImageRef

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [ImageRef(image, f"made-up image {number}") for number, image in enumerate(pixels)]
