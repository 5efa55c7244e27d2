"""Encoded examples in an order that needs little padding, and arrays of their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from structune.tasks.task import IGNORED, Task


def shortest_first(task: Task, encoded: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The examples in the order of their lengths: batches are padded when they are put together, and need little of it.

    Examples that are all of one length stay as they are.
    """
    order = by_length(task, encoded)
    return encoded if order is None else [encoded[row] for row in order]


def by_length(task: Task, encoded: Sequence[Mapping[str, Any]]) -> list[int] | None:
    """Which example comes when, in the order of their lengths; None if they are all of one."""
    if not len(encoded) or task.length(encoded[0]) is None:
        return None
    return sorted(range(len(encoded)), key=lambda row: task.length(encoded[row]) or 0)


def are_finite(values: Any) -> bool:
    """Whether a number, and all in arrays that may be nested in tuples, is finite."""
    if isinstance(values, (tuple, list)):
        return all(are_finite(value) for value in values)
    return bool(np.isfinite(values).all())


def joined(parts: Sequence[Any]) -> Any:
    """Arrays of batches as one, along their first axis; the second is filled up with −100 where batches differ in it.

    Arrays may be nested in tuples, lists and mappings, which are alike in all batches.
    """
    first = parts[0]
    if isinstance(first, (tuple, list)):
        return type(first)(joined(column) for column in zip(*parts, strict=True))
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if first.ndim > 1 and len({part.shape[1] for part in parts}) > 1:
        most = max(part.shape[1] for part in parts)
        still = [(0, 0)] * (first.ndim - 2)
        parts = [np.pad(part, [(0, 0), (0, most - part.shape[1]), *still], constant_values=IGNORED) for part in parts]
    return np.concatenate(parts)
