"""What a block is: families of structured matrices, each a function of its generators.

The names of the families are known at once; the families, and torch with them, are imported when they are asked for.
Beside the families here is what a file with another one needs.
"""

from typing import TYPE_CHECKING

from structune.lazy import lazy
from structune.structures.registry import (
    PLACES,
    check,
    class_name,
    declared,
    get,
    is_registered,
    names,
    register,
    usable,
)

if TYPE_CHECKING:
    from structune.structures.base import Structure, Term, unit_scale
    from structune.structures.convolution import Convolution
    from structune.structures.families.toeplitz import diagonal_sums, toeplitz_entries
    from structune.structures.generator import Generator, gaussian, identity, ones, orthogonal, uniform, zeros
    from structune.structures.nodes import nodes_on_interval, raw_of_nodes
    from structune.structures.shift import krylov_diagonals

__all__ = [
    "Convolution",
    "Generator",
    "Structure",
    "Term",
    "check",
    "declared",
    "diagonal_sums",
    "gaussian",
    "get",
    "identity",
    "is_registered",
    "krylov_diagonals",
    "names",
    "nodes_on_interval",
    "ones",
    "orthogonal",
    "raw_of_nodes",
    "register",
    "toeplitz_entries",
    "uniform",
    "unit_scale",
    "usable",
    "zeros",
]

_HELPERS = {
    "base": ("Structure", "Term", "unit_scale"),
    "convolution": ("Convolution",),
    "families.toeplitz": ("diagonal_sums", "toeplitz_entries"),
    "generator": ("Generator", "gaussian", "identity", "ones", "orthogonal", "uniform", "zeros"),
    "nodes": ("nodes_on_interval", "raw_of_nodes"),
    "shift": ("krylov_diagonals",),
}
"""What is here, by the file that it is in; `shift` itself is not, for a file has that name."""

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {class_name(name): place for name, place in PLACES.items()}
        | {name: f"{__name__}.{file}:{name}" for file, held in _HELPERS.items() for name in held},
    )
