"""HyDRA: structured blocks whose numbers are drawn from a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune import structures
from structune.methods.update import UpdateMethod, declared, of_the_update
from structune.palette import VERMILION

if TYPE_CHECKING:
    import peft
    from typing_extensions import Self  # in typing from Python 3.11 on


@of_the_update("block_size")
class Hydra(UpdateMethod):
    """Structured blocks that draw their numbers from a pool shared by all blocks of a layer (MERL TR2024-157)."""

    name: Literal["hydra"] = "hydra"
    structure: str = "toeplitz"
    num_splits: int | None = 4
    pool_size: int | None = 384

    colour: ClassVar[str] = VERMILION

    def config(self, **common: Any) -> peft.PeftConfig:
        import structune

        return structune.hydra(**self.settings(), **common)

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """One for each family, with the splits that it says: `hydra-toeplitz`."""
        return _OnePerFamily(cls)


class _OnePerFamily(Mapping[str, Any]):
    """Presets by name; families of other packages are found when they are asked for."""

    def __init__(self, method: type[Hydra]) -> None:
        self.method = method

    def _families(self) -> dict[str, str]:
        return {f"hydra-{family.replace('_', '-')}": family for family in structures.names()}

    def __getitem__(self, name: str) -> Hydra:
        family = self._families()[name]
        return self.method(structure=family, num_splits=declared(family, "num_splits"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._families())

    def __len__(self) -> int:
        return len(self._families())
