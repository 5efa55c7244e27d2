"""Which algorithm carries out a product, from static facts alone."""

from __future__ import annotations

import torch

from structune.products import dense, factored, fft
from structune.products.algorithm import Algorithm
from structune.structures import RankedStructure, Structure
from structune.structures.circulant import Circulant

ALGORITHMS: dict[str, Algorithm] = {"dense": dense, "factored": factored, "fft": fft}
"""Every algorithm by name: modules with `supports(structure)` and `multiply(structure, x, generators)`."""


def choose(structure: Structure, num_blocks: int, tokens: int, dtype: torch.dtype, device_type: str) -> str:
    """The algorithm that `auto` stands for.

    Thin factors always win. A circulant is diagonal under a transform of its length. Toeplitz and Hankel blocks need
    one of twice their length, which pays off from about 512×512 entries. A chain of two convolutions passes through
    P·Q·R vectors per token, which pays off while these are few. (Measured on an x86 CPU in fp32, forward and backward.)

    Args:
        structure: the block, with its sizes.
        num_blocks: P·Q.
        tokens: T, all leading dimensions of x flattened.
        dtype: of x.
        device_type: "cpu", "cuda", ….
    """
    if factored.supports(structure):
        return "factored"
    if not fft.supports(structure):
        return "dense"
    if isinstance(structure, RankedStructure):
        pays = num_blocks * structure.rank <= 2 or tokens <= 64
    else:
        pays = isinstance(structure, Circulant) or num_blocks * structure.rows * structure.cols >= 512 * 512
    return "fft" if pays else "dense"


def resolve(
    algorithm: str, structure: Structure, num_blocks: int, tokens: int, dtype: torch.dtype, device_type: str
) -> str:
    """`algorithm` itself, or the choice made for "auto".

    Raises:
        ValueError: the name is unknown, or the family has no such product.
    """
    if algorithm == "auto":
        return choose(structure, num_blocks, tokens, dtype, device_type)
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
