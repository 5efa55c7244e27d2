"""What a block is: ten families of structured matrices, each a function of its generators.

The names of the families are known at once; the families, and torch with them, are imported when they are asked for.
"""

from typing import TYPE_CHECKING

from structune.lazy import lazy
from structune.structures.registry import announce, get, names, register

if TYPE_CHECKING:
    from structune.structures.base import RankedStructure, Structure
    from structune.structures.convolution import Convolution

__all__ = ["Convolution", "RankedStructure", "Structure", "get", "names", "register"]

_FAMILIES = {
    "low_rank": "LowRank",
    "circulant": "Circulant",
    "toeplitz": "Toeplitz",
    "hankel": "Hankel",
    "vandermonde": "Vandermonde",
    "cauchy": "Cauchy",
    "toeplitz_like": "ToeplitzLike",
    "hankel_like": "HankelLike",
    "vandermonde_like": "VandermondeLike",
    "cauchy_like": "CauchyLike",
}
"""Name, which is also the name of its file, and class of each family that comes with the package."""

for _name, _class in _FAMILIES.items():
    announce(_name, f"{__name__}.{_name}:{_class}")

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {_class: f"{__name__}.{_name}:{_class}" for _name, _class in _FAMILIES.items()}
        | {_class: f"{__name__}.base:{_class}" for _class in ("RankedStructure", "Structure")}
        | {"Convolution": f"{__name__}.convolution:Convolution"},
    )
