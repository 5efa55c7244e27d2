"""Texts as arrays of numbers, as outputs and labels are: the bytes of UTF-8, filled up on the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from structune.tasks.task import IGNORED


def as_numbers(texts: Sequence[str]) -> Tensor:
    """(texts, bytes of the longest), at least one wide; `IGNORED` where nothing is."""
    rows = [list(text.encode("utf-8", "surrogatepass")) for text in texts]
    most = max([1, *map(len, rows)])
    return torch.tensor([row + [IGNORED] * (most - len(row)) for row in rows])


def as_texts(numbers: Iterable[Any]) -> list[str]:
    """The texts that `as_numbers` was given; numbers are an array or a tensor."""
    return [bytes(int(number) for number in row if number >= 0).decode("utf-8", "surrogatepass") for row in numbers]
