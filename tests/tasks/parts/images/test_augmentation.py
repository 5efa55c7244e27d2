"""Variation: what it may do, and that nothing but seed, epoch and number decides it."""

from __future__ import annotations

from typing import Any

import numpy as np

from structune.tasks.parts.images.augmentation import Augment, varied

NUMBERS = list(range(400))
GOLDEN = [(False, 0, 2), (False, 0, 3), (False, 4, 4), (True, 3, 0), (True, 4, 3), (False, 1, 0)]


def pictures(count: int = 400) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(1, 256, (count, 6, 8, 3)).astype(np.uint8)


def shifts(picture: np.ndarray[Any, Any], most: int, flip: bool) -> list[tuple[tuple[bool, int, int], Any]]:
    """Every variation there is, by padding and cutting, as it is usually told."""
    found = []
    for mirrored in (False, True) if flip else (False,):
        padded = np.pad(picture[:, ::-1] if mirrored else picture, ((most, most), (most, most), (0, 0)))
        for down in range(2 * most + 1):
            for right in range(2 * most + 1):
                found.append(((mirrored, down, right), padded[down : down + 6, right : right + 8]))
    return found


def test_each_is_one_of_the_variations_and_all_occur() -> None:
    augment = Augment(flip=True, crop=1)
    made = varied(pictures(), augment, 3, 0, NUMBERS)
    seen = []
    for before, after in zip(pictures(), made, strict=True):
        seen += [name for name, picture in shifts(before, 1, True) if np.array_equal(picture, after)]
    assert len(seen) == 400
    counts = np.unique([str(name) for name in seen], return_counts=True)[1]
    assert len(counts) == 18
    assert np.sum((counts - 400 / 18) ** 2 / (400 / 18)) < 40.8  # χ² with 17 degrees of freedom, 1 in 1,000


def test_seed_epoch_and_number_decide_and_nothing_else() -> None:
    augment = Augment(flip=True, crop=2)
    made = varied(pictures(), augment, 3, 1, NUMBERS)
    np.random.default_rng().random(7)
    assert np.array_equal(varied(pictures(), augment, 3, 1, NUMBERS), made)
    backwards = varied(pictures()[::-1], augment, 3, 1, NUMBERS[::-1])[::-1]
    assert np.array_equal(backwards, made)
    for seed, epoch, numbers in ((4, 1, NUMBERS), (3, 2, NUMBERS), (3, 1, [number + 1 for number in NUMBERS])):
        assert not np.array_equal(varied(pictures(), augment, seed, epoch, numbers), made)


def test_a_draw_is_the_same_on_every_machine() -> None:
    made = varied(pictures(6), Augment(flip=True, crop=2), 0, 0, range(6))
    whole = [shifts(picture, 2, True) for picture in pictures(6)]
    found = [
        next(name for name, picture in every if np.array_equal(picture, after))
        for every, after in zip(whole, made, strict=True)
    ]
    assert found == GOLDEN


def test_nothing_asked_for_is_nothing_done() -> None:
    assert not Augment()
    assert np.array_equal(varied(pictures(), Augment(), 0, 0, NUMBERS), pictures())
    mirrored = varied(pictures(), Augment(flip=True), 0, 0, NUMBERS)
    same = [np.array_equal(one, other) for one, other in zip(mirrored, pictures(), strict=True)]
    assert 150 < sum(same) < 250
