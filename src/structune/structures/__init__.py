"""What a block is: families of structured matrices, each a function of its generators.

The names of the families are known at once; the families, and torch with them, are imported when they are asked for.
"""

from typing import TYPE_CHECKING

from structune.lazy import lazy
from structune.structures.registry import PLACES, class_name, declared, get, names, register

if TYPE_CHECKING:
    from structune.structures.base import Structure
    from structune.structures.convolution import Convolution
    from structune.structures.generator import Generator

__all__ = ["Convolution", "Generator", "Structure", "declared", "get", "names", "register"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {class_name(name): place for name, place in PLACES.items()}
        | {"Structure": f"{__name__}.base:Structure"}
        | {name: f"{__name__}.{name.lower()}:{name}" for name in ("Convolution", "Generator")},
    )
