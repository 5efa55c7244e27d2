"""Structured updates in general."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.methods.update import UpdateMethod, of_the_update
from structune.palette import ORANGE

if TYPE_CHECKING:
    import peft
    from typing_extensions import Self  # in typing from Python 3.11 on


@of_the_update()
class Structune(UpdateMethod):
    """The general method: every field of `structune.StructuneConfig`."""

    name: Literal["structune"] = "structune"
    bias: Literal["none", "all", "structune_only"] = "none"
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    colour: ClassVar[str] = ORANGE

    def config(self, **common: Any) -> peft.PeftConfig:
        import structune

        return structune.StructuneConfig(**self.settings(), **common)

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """None: what it is without settings has a name of its own."""
        return {}
