"""Which algorithm carries out a product, from static facts alone."""

from __future__ import annotations

import torch

from structune.products.algorithm import Algorithm
from structune.products.dense import Dense
from structune.products.devices import Case, device
from structune.products.factored import Factored
from structune.products.folding import Fold
from structune.products.transformed import Transformed
from structune.structures import Structure
from structune.surroundings import exported, transformed, translated

ALGORITHMS: dict[str, Algorithm] = {
    "dense": Dense(),
    "factored": Factored(),
    "fft": Transformed("fft"),
    "dft_gemm": Transformed("dft_gemm"),
    "fold": Fold(),
}
"""Every algorithm by name."""


def choose(
    structure: Structure,
    grid: tuple[int, int],
    tokens: int,
    dtype: torch.dtype,
    device_type: str,
    *,
    weight: bool = False,
    grad: bool = True,
) -> str:
    """The algorithm that `auto` stands for: what is least on that kind of device, by `structune.products.devices`.

    Args:
        structure: the block, with its sizes.
        grid: (P, Q).
        tokens: T, all leading dimensions of x flattened.
        dtype: in which matrices are multiplied by x: its own, or autocast's.
        device_type: "cpu", "cuda", ….
        weight: whether ΔW may be added to a frozen W of x's dtype.
        grad: whether gradients are recorded.
    """
    builds_strips = ALGORITHMS["fold"].supports(structure)
    return device(device_type).choose(Case(structure, *grid, tokens, dtype, builds_strips, weight, grad))


def resolve(
    algorithm: str,
    structure: Structure,
    grid: tuple[int, int],
    tokens: int,
    dtype: torch.dtype,
    device_type: str,
    *,
    weight: bool = False,
    grad: bool = True,
) -> str:
    """`algorithm` itself, or the choice made for "auto"; one that goes where others cannot, where that is asked for.

    A program that is exported is for any number of tokens, so "auto" depends on none there. What PyTorch's own
    operators make up goes through everything: programs that run without this package, and all transforms. Through
    transforms that are not compiled convolutions go as well.

    Raises:
        ValueError: the name is unknown, or the family has no such product.
    """
    if algorithm != "auto":
        check(algorithm, structure)
    native = "factored" if structure.has_own_product else "dense"
    # In this order: first what must not leave PyTorch's own operators, then what has no rules for transforms.
    if exported() and (algorithm == "auto" or translated()):
        return native
    if algorithm == "auto":
        algorithm = choose(structure, grid, tokens, dtype, device_type, weight=weight, grad=grad)
    if not transformed() or ALGORITHMS[algorithm].is_native:
        return algorithm
    if torch.compiler.is_compiling():
        return native
    one_convolution = structure.has_convolutions and not structure.inner_vectors
    return algorithm if algorithm != "fold" else "fft" if one_convolution else native


def check(algorithm: str, structure: Structure) -> None:
    """Raise ValueError unless `algorithm` is "auto" or one that can carry out this family's product."""
    able = [name for name, one in ALGORITHMS.items() if one.supports(structure)]
    if algorithm != "auto" and algorithm not in able:
        raise ValueError(
            f"algorithm={algorithm!r} does not multiply {structure.name} blocks: choose one of "
            f"{', '.join(map(repr, ['auto', *able]))}"
        )
