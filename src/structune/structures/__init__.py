"""What a block is: ten families of structured matrices, each a function of its generators."""

from structune.structures.base import RankedStructure, Structure
from structune.structures.cauchy import Cauchy
from structune.structures.cauchy_like import CauchyLike
from structune.structures.circulant import Circulant
from structune.structures.convolution import Convolution
from structune.structures.hankel import Hankel
from structune.structures.hankel_like import HankelLike
from structune.structures.low_rank import LowRank
from structune.structures.registry import get, names, register
from structune.structures.toeplitz import Toeplitz
from structune.structures.toeplitz_like import ToeplitzLike
from structune.structures.vandermonde import Vandermonde
from structune.structures.vandermonde_like import VandermondeLike

for _family in (
    LowRank,
    Circulant,
    Toeplitz,
    Hankel,
    Vandermonde,
    Cauchy,
    ToeplitzLike,
    HankelLike,
    VandermondeLike,
    CauchyLike,
):
    register(_family)

__all__ = ["Convolution", "RankedStructure", "Structure", "get", "names", "register"]
