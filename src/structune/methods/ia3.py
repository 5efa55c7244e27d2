"""(IA)³: scaled activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import LearningRates, PeftMethod
from structune.palette import PURPLE

if TYPE_CHECKING:
    import peft


class IA3(PeftMethod):
    """One trained factor per output feature (arXiv 2205.05638)."""

    name: Literal["ia3"] = "ia3"

    colour: ClassVar[str] = PURPLE
    marker: ClassVar[str] = "^"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=1e-2)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.IA3Config(feedforward_modules=[], **common)
