"""Which algorithm carries out a product, from static facts alone."""

from __future__ import annotations

import math

import torch

from structune.products import dense, dft_gemm, factored, fft, fold
from structune.products.algorithm import Algorithm
from structune.structures import RankedStructure, Structure
from structune.surroundings import exported, transformed, translated

ALGORITHMS: dict[str, Algorithm] = {
    "dense": dense,
    "factored": factored,
    "fft": fft,
    "dft_gemm": dft_gemm,
    "fold": fold,
}
"""Every algorithm by name: modules with `supports(structure)` and `multiply(structure, x, generators)`."""


FOLD_TOKENS, FOLD_SHARE = 256, 1 / 4
"""Where ΔW may be added to a weight, `fold` pays from so many tokens on, and from this share of the width √(in·out).
Without gradients spectra are kept from call to call, W + ΔW is not: then from as many tokens on as W has entries for
each number of a token that `fft` transforms, about a kernel's length for each of √(P·Q) inputs and as many outputs."""

FEW_VECTORS, FEW_VECTORS_TOKENS = 2, 512
"""A chain of two convolutions passes through P·Q·R vectors per token. Up to so many, `fft` pays below so many tokens;
above,"""
FEW_TOKENS = 64
"""up to so many tokens. From here on `fold` also beats `dense` where there is no weight: it keeps no matrix."""


def choose(
    structure: Structure,
    num_blocks: int,
    tokens: int,
    dtype: torch.dtype,
    device_type: str,
    *,
    weight: bool = False,
    grad: bool = True,
) -> str:
    """The algorithm that `auto` stands for.

    Thin factors are always multiplied one after the other. The numbers above were read off `structune bench calibrate`
    on an x86 CPU with two threads, fp32, forward and backward, 256 to 2048 wide; other devices were not measured.

    Args:
        structure: the block, with its sizes.
        num_blocks: P·Q.
        tokens: T, all leading dimensions of x flattened.
        dtype: of x.
        device_type: "cpu", "cuda", ….
        weight: whether ΔW may be added to a frozen W of x's dtype.
        grad: whether gradients are recorded.
    """
    if factored.supports(structure):
        return "factored"
    width = math.sqrt(num_blocks * structure.rows * structure.cols)
    built = "fold" if tokens > FEW_TOKENS and fold.supports(structure) else "dense"
    folds = weight and dtype in (torch.float32, torch.float64) and fold.supports(structure)
    if not fft.supports(structure):
        return "fold" if folds else built
    if isinstance(structure, RankedStructure):
        few = num_blocks * structure.rank <= FEW_VECTORS
        return "fft" if tokens <= (FEW_VECTORS_TOKENS if few else FEW_TOKENS) else built
    transformed = 2 * math.sqrt(num_blocks) * structure.numel
    enough = max(FOLD_TOKENS, FOLD_SHARE * width if grad else width**2 / transformed)
    return "fold" if folds and tokens >= enough else "fft"


def resolve(
    algorithm: str,
    structure: Structure,
    num_blocks: int,
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
        algorithm = choose(structure, num_blocks, tokens, dtype, device_type, weight=weight, grad=grad)
    if not transformed() or algorithm in ("dense", "factored"):
        return algorithm
    if torch.compiler.is_compiling():
        return own
    one_convolution = fft.supports(structure) and not isinstance(structure, RankedStructure)
    return algorithm if algorithm != "fold" else "fft" if one_convolution else own


def check(algorithm: str, structure: Structure) -> None:
    """Raise ValueError unless `algorithm` is "auto" or one that can carry out this family's product."""
    able = [name for name, module in ALGORITHMS.items() if module.supports(structure)]
    if algorithm != "auto" and algorithm not in able:
        raise ValueError(
            f"algorithm={algorithm!r} does not multiply {structure.name} blocks: choose one of "
            f"{', '.join(map(repr, ['auto', *able]))}"
        )
