"""Light variation of the pictures that are trained on: mirrored, shifted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from structune.section import Section

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Augment(Section):
    """How pictures vary while they are trained on, never where they are evaluated.

    `flip`: every second one, at random, is mirrored left to right. `crop`: each is shifted by up to so many pixels of
    the model's picture, up or down and left or right; what comes in from outside is black.
    """

    flip: bool = False
    crop: Annotated[int, Field(ge=0, le=512)] = 0

    def __bool__(self) -> bool:
        return self.flip or self.crop > 0


def varied(pictures: NDArray[Any], augment: Augment, seed: int, epoch: int, numbers: Sequence[int]) -> NDArray[Any]:
    """The pictures (N, height, width, channels), each varied by a draw that is a function of seed, epoch and number.

    Nothing is remembered from one draw to the next, so a resumed run, and one of several processes, draws the same.
    """
    made = pictures.copy()
    for place, number in enumerate(numbers):
        mirrored, down, right = _draw(augment, seed, epoch, number)
        picture = pictures[place, :, ::-1] if mirrored else pictures[place]
        made[place] = _shifted(picture, down, right) if down or right else picture
    return made


def _draw(augment: Augment, seed: int, epoch: int, number: int) -> tuple[bool, int, int]:
    """Whether to mirror, and by how much to shift down and to the right."""
    drawn = hashlib.blake2b(f"{seed}/{epoch}/{number}".encode(), digest_size=24).digest()
    flip, down, right = (int.from_bytes(drawn[start : start + 8], "little") for start in (0, 8, 16))
    choices = 2 * augment.crop + 1
    return augment.flip and flip % 2 == 1, down % choices - augment.crop, right % choices - augment.crop


def _shifted(picture: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    import numpy as np

    height, width = picture.shape[:2]
    made = np.zeros_like(picture)
    to_rows, from_rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height - max(down, 0))
    to_columns, from_columns = slice(max(right, 0), width + min(right, 0)), slice(max(-right, 0), width - max(right, 0))
    made[to_rows, to_columns] = picture[from_rows, from_columns]
    return made
