"""VeRA: shared random factors, scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import Count, LearningRates, PeftMethod
from structune.palette import PURPLE

if TYPE_CHECKING:
    import peft


class VeRA(PeftMethod):
    """Low-rank adaptation with shared frozen random factors (arXiv 2310.11454)."""

    name: Literal["vera"] = "vera"
    rank: Count = 256

    colour: ClassVar[str] = PURPLE

    def rates(self) -> LearningRates:
        return LearningRates(adapter=1e-2)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.VeraConfig(r=self.rank, **common)
