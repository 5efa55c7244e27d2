"""The two published methods as configurations."""

from __future__ import annotations

from typing import Any

from structune.options import BlockSize
from structune.peft.config import StructuneConfig


def c3a(block_size: BlockSize | None = None, *, num_splits: int | None = None, **kwargs: Any) -> StructuneConfig:
    """C3A, block-circular convolution: own circulant blocks of `block_size`, or `num_splits` of them per axis.

    ΔW holds out·in/block_size numbers, or num_splits · max(out, in). Source: arXiv 2407.19342. Unlike PEFT's C3AConfig
    it starts as a no-op and does not divide ΔW by in_features; scale="1/in_features" does.

    Args:
        block_size: b, the length of a kernel; need not divide the layer's sizes. "gcd" is the greatest common divisor
            of each layer's own two sizes, the largest b that the paper allows: for models whose layers differ in size.
        num_splits: k, blocks per axis, instead of block_size: as fine a cut for small layers as for large ones.
        **kwargs: any other field of `StructuneConfig`, such as target_modules.

    Raises:
        ValueError: both or neither of block_size and num_splits are given, or one does not fit a layer.

    Examples:
        >>> c3a(block_size=128, target_modules=["query", "value"]).structure
        'circulant'
        >>> c3a("gcd", target_modules=["project_conv"]).block_size
        'gcd'
    """
    return StructuneConfig(structure="circulant", block_size=block_size, num_splits=num_splits, **kwargs)


def hydra(
    structure: str,
    pool_size: int,
    num_splits: int = 4,
    fixed_ratio: float = 0.0,
    seed: int = 0,
    **kwargs: Any,
) -> StructuneConfig:
    """HyDRA: num_splits × num_splits structured blocks whose numbers are drawn from a pool of `pool_size`.

    Source: TR2024-157 (k = 4 splits; 1 for low_rank; pool sizes from 384 on 768×768 matrices).

    Args:
        structure: family of the blocks, one of `structune.structures.names()`.
        pool_size: P, numbers per ΔW, or in all that shares a pool where `pool_scope` is given.
        num_splits: k, blocks per axis.
        fixed_ratio: share of the pool that is random and frozen, in [0, 1).
        seed: determines index map and random numbers.
        **kwargs: any other field of `StructuneConfig`, such as target_modules.

    Examples:
        >>> hydra(structure="toeplitz", pool_size=384, target_modules=["query", "value"]).num_splits
        4
    """
    return StructuneConfig(
        structure=structure,
        pool_size=pool_size,
        num_splits=num_splits,
        fixed_ratio=fixed_ratio,
        seed=seed,
        **kwargs,
    )
