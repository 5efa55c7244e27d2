"""C3A as PEFT has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import Count, LearningRates, PeftMethod
from structune.palette import SKY

if TYPE_CHECKING:
    import peft


class PeftC3A(PeftMethod):
    """C3A as PEFT ships it, for comparison."""

    name: Literal["peft_c3a"] = "peft_c3a"
    block_size: Count = 64

    colour: ClassVar[str] = SKY

    def rates(self) -> LearningRates:
        return LearningRates(adapter=3e-1)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.C3AConfig(block_size=self.block_size, **common)
