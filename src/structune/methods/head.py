"""The head alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from structune.methods.method import LearningRates, PartOfModel
from structune.palette import GREY


class Head(PartOfModel):
    """Nothing but the classification head is trained: the baseline every adapter has to beat."""

    name: Literal["head"] = "head"

    colour: ClassVar[str] = GREY
    searched_rate: ClassVar[str] = "head_learning_rate"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=1e-2, head=1e-2)

    def trains(self, parameter: str) -> bool:
        return False
