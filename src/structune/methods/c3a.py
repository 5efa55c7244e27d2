"""C3A: block-circular convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from structune.methods.update import UpdateMethod, of_the_update
from structune.options import BlockSize
from structune.palette import BLUE

if TYPE_CHECKING:
    import peft


@of_the_update("structure", "structure_options")
class C3A(UpdateMethod):
    """Circulant blocks with their own numbers (arXiv 2407.19342), of a block_size or num_splits of them per axis."""

    name: Literal["c3a"] = "c3a"
    block_size: BlockSize | None = 64

    colour: ClassVar[str] = BLUE

    @property
    def label(self) -> str:
        return self.name

    def config(self, **common: Any) -> peft.PeftConfig:
        import structune

        return structune.c3a(**self.settings(), **common)

    @model_validator(mode="before")
    @classmethod
    def _one_cut(cls, given: Any) -> Any:
        """Where num_splits is given and no block_size, the default of the latter does not count."""
        if isinstance(given, dict) and given.get("num_splits") is not None:
            return {"block_size": None, **given}
        return given
