"""VB-LoRA: factors out of a bank of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import Count, LearningRates, PeftMethod
from structune.palette import BLACK

if TYPE_CHECKING:
    import peft


class VBLoRA(PeftMethod):
    """Low-rank factors made of mixtures of shared vectors (arXiv 2405.15179)."""

    name: Literal["vblora"] = "vblora"
    vectors: Count = 30
    length: Count = 64
    rank: Count = 4

    colour: ClassVar[str] = BLACK
    marker: ClassVar[str] = "P"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=5e-3)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.VBLoRAConfig(r=self.rank, num_vectors=self.vectors, vector_length=self.length, **common)
