"""BitFit: biases."""

from __future__ import annotations

from typing import ClassVar, Literal

from structune.methods.method import PartOfModel
from structune.palette import BLACK


class BitFit(PartOfModel):
    """The model's own biases and the head (arXiv 2106.10199)."""

    name: Literal["bitfit"] = "bitfit"

    colour: ClassVar[str] = BLACK

    def trains(self, parameter: str) -> bool:
        return parameter.endswith(".bias")
