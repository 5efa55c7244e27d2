"""UniLoRA: one vector for all factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import Count, LearningRates, PeftMethod
from structune.palette import PURPLE

if TYPE_CHECKING:
    import peft


class UniLoRA(PeftMethod):
    """Low-rank factors of all layers that read one vector of `size` numbers (arXiv 2506.00799)."""

    name: Literal["unilora"] = "unilora"
    size: Count = 1000
    rank: Count = 4

    colour: ClassVar[str] = PURPLE
    marker: ClassVar[str] = "D"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=5e-3)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.UniLoraConfig(r=self.rank, theta_d_length=self.size, **common)
