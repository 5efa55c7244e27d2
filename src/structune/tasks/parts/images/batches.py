"""Encoded images, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from structune.tasks.parts.images.augmentation import Augment, varied
from structune.tasks.parts.images.cache import Pictures
from structune.tasks.parts.images.pixels import Pixels


class EncodedImages(Sequence[Mapping[str, Any]]):
    """At each place a `picture`, uint8 (height, width, 3), its `number`, and its class in `labels` if that is known."""

    def __init__(self, pictures: Pictures, labels: Sequence[int] | None) -> None:
        self.pictures = pictures
        self.labels = labels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: Any) -> Any:
        known = {} if self.labels is None else {"labels": self.labels[row]}
        return {"picture": self.pictures[row], "number": int(row) % len(self), **known}


class ImageBatches:
    """Puts encoded images together: `pixel_values` (N, 3, height, width), float32, and `labels`.

    Args:
        pixels: how pictures become what the model reads.
        augment: how they vary; None: they do not.
    """

    def __init__(self, pixels: Pixels, augment: Augment | None) -> None:
        self.pixels = pixels
        self.augment = augment
        self._drawn_from = (0, 0)

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """What variation is drawn from, until it is called again."""
        self._drawn_from = (seed, epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pictures = np.stack([example["picture"] for example in examples])
        if self.augment:
            pictures = varied(pictures, self.augment, *self._drawn_from, [example["number"] for example in examples])
        batch = {"pixel_values": torch.from_numpy(self.pixels.values(pictures))}
        if "labels" in examples[0]:
            batch["labels"] = torch.tensor([example["labels"] for example in examples])
        return batch
