"""LoRA: low-rank adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.methods.method import Count, PeftMethod, Probability
from structune.palette import GREEN

if TYPE_CHECKING:
    import peft


class LoRA(PeftMethod):
    """Low-rank adaptation (arXiv 2106.09685)."""

    name: Literal["lora"] = "lora"
    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Probability = 0.0

    colour: ClassVar[str] = GREEN

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        alpha: Any = self.alpha  # any number will do
        return peft.LoraConfig(r=self.rank, lora_alpha=alpha, lora_dropout=self.dropout, **common)
