"""TinyLoRA: a few numbers for a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.methods.method import Count, LearningRates, PeftMethod
from structune.palette import SKY

if TYPE_CHECKING:
    import peft


class TinyLoRA(PeftMethod):
    """A few numbers, spread over SVD factors of each weight by a stored random tensor (arXiv 2602.04118).

    `size` numbers in each group of layers that share them; at `tying` 1 all layers are one group, at 0 each is its own.
    """

    name: Literal["tinylora"] = "tinylora"
    size: Count = 64
    rank: Count = 2
    tying: Annotated[float, Field(ge=0, le=1)] = 1.0

    colour: ClassVar[str] = SKY
    marker: ClassVar[str] = "v"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=1e-2)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.TinyLoraConfig(r=self.rank, u=self.size, weight_tying=self.tying, **common)
