"""BOFT: a product of sparse orthogonal matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.method import Count, PeftMethod
from structune.palette import PURPLE

if TYPE_CHECKING:
    import peft


class BOFT(PeftMethod):
    """Orthogonal fine-tuning by butterfly factors (arXiv 2311.06243)."""

    name: Literal["boft"] = "boft"
    block_size: Count = 4
    factors: Count = 1

    colour: ClassVar[str] = PURPLE
    marker: ClassVar[str] = "s"

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        return peft.BOFTConfig(boft_block_size=self.block_size, boft_n_butterfly_factor=self.factors, **common)
