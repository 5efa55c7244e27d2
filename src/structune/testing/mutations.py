"""Mistakes that a comparison must notice: a tolerance that accepts zeros is a defect."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

MUTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda y: y * 0,
    "sign flip": lambda y: -y,
    "reversal": lambda y: y.flip(-1),
    "off by one": lambda y: y.roll(1, -1),
}
"""What is done to a result whose last axis has at least two different entries."""
