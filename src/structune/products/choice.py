"""Which algorithm carries out a product, from static facts alone."""

from __future__ import annotations

import torch

from structune.products import dense, dft_gemm, factored, fft, folding
from structune.products.algorithm import Algorithm
from structune.products.devices import Case, device
from structune.structures import Structure
from structune.surroundings import exported, transformed, translated

ALGORITHMS: dict[str, Algorithm] = {
    "dense": dense,
    "factored": factored,
    "fft": fft,
    "dft_gemm": dft_gemm,
    "fold": folding,
}
"""Every algorithm by name: modules with `supports(structure)` and `multiply(structure, x, generators)`."""


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
        dtype: of x.
        device_type: "cpu", "cuda", ….
        weight: whether ΔW may be added to a frozen W of x's dtype.
        grad: whether gradients are recorded.
    """
    return device(device_type).choose(Case(structure, *grid, tokens, dtype, folding.supports(structure), weight, grad))


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
    own = "factored" if factored.supports(structure) else "dense"
    if exported() and (algorithm == "auto" or translated()):
        return own
    if algorithm == "auto":
        algorithm = choose(structure, grid, tokens, dtype, device_type, weight=weight, grad=grad)
    if not transformed() or algorithm in ("dense", "factored"):
        return algorithm
    if torch.compiler.is_compiling():
        return own
    one_convolution = structure.has_convolutions and not structure.inner_vectors
    return algorithm if algorithm != "fold" else "fft" if one_convolution else own


def check(algorithm: str, structure: Structure) -> None:
    """Raise ValueError unless `algorithm` is "auto" or one that can carry out this family's product."""
    able = [name for name, module in ALGORITHMS.items() if module.supports(structure)]
    if algorithm != "auto" and algorithm not in able:
        raise ValueError(
            f"algorithm={algorithm!r} does not multiply {structure.name} blocks: choose one of "
            f"{', '.join(map(repr, ['auto', *able]))}"
        )
