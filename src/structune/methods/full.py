"""Full fine-tuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from structune.methods.method import LearningRates, PartOfModel
from structune.palette import BLACK


class Full(PartOfModel):
    """Every parameter of the model."""

    name: Literal["full"] = "full"

    colour: ClassVar[str] = BLACK
    marker: ClassVar[str] = "D"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=1e-4)

    def trains(self, parameter: str) -> bool:
        return True
