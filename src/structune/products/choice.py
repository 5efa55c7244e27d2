"""Which algorithm carries out a product, from static facts alone."""

from __future__ import annotations

import torch

from structune.products import dense, dft_gemm, factored, fft, fold
from structune.products.algorithm import Algorithm
from structune.structures import RankedStructure, Structure

ALGORITHMS: dict[str, Algorithm] = {
    "dense": dense,
    "factored": factored,
    "fft": fft,
    "dft_gemm": dft_gemm,
    "fold": fold,
}
"""Every algorithm by name: modules with `supports(structure)` and `multiply(structure, x, generators)`."""


def choose(
    structure: Structure,
    num_blocks: int,
    tokens: int,
    dtype: torch.dtype,
    device_type: str,
    *,
    weight: bool = False,
    training: bool = True,
) -> str:
    """The algorithm that `auto` stands for.

    Args:
        structure: the block, with its sizes.
        num_blocks: P·Q.
        tokens: T, all leading dimensions of x flattened.
        dtype: of x.
        device_type: "cpu", "cuda", ….
        weight: whether ΔW may be added to a frozen W of x's dtype.
        training: whether gradients are needed.
    """
    if factored.supports(structure):
        return "factored"
    size = num_blocks * structure.rows * structure.cols
    if weight and dtype in (torch.float32, torch.float64) and tokens**2 >= size / 4 and fold.supports(structure):
        return "fold"
    built = "fold" if fold.supports(structure) else "dense"
    if not fft.supports(structure):
        return built
    if isinstance(structure, RankedStructure) and num_blocks * structure.rank > 2 and tokens > 64:
        return built
    return "fft"


def resolve(
    algorithm: str,
    structure: Structure,
    num_blocks: int,
    tokens: int,
    dtype: torch.dtype,
    device_type: str,
    *,
    weight: bool = False,
    training: bool = True,
) -> str:
    """`algorithm` itself, or the choice made for "auto".

    Raises:
        ValueError: the name is unknown, or the family has no such product.
    """
    if algorithm == "auto":
        return choose(structure, num_blocks, tokens, dtype, device_type, weight=weight, training=training)
    check(algorithm, structure)
    return algorithm


def check(algorithm: str, structure: Structure) -> None:
    """Raise ValueError unless `algorithm` is "auto" or one that can carry out this family's product."""
    able = [name for name, module in ALGORITHMS.items() if module.supports(structure)]
    if algorithm != "auto" and algorithm not in able:
        raise ValueError(
            f"algorithm={algorithm!r} does not multiply {structure.name} blocks: choose one of "
            f"{', '.join(map(repr, ['auto', *able]))}"
        )
