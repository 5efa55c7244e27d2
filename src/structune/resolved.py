"""What the options of ΔW come to at the sizes of a matrix."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass

from structune import pool_maps, products
from structune.grid import Grid
from structune.options import PoolScope, UpdateOptions, check_count, families_with
from structune.pool_maps.pool_map import PoolMap
from structune.start import Start
from structune.structures import Structure, get

NUMBERS_PER_ENTRY = 4
"""More numbers than this for each entry of ΔW are a mistake, or an attack on memory."""


@dataclass(frozen=True)
class ResolvedOptions:
    """Everything about one ΔW that its options decide, but for the numbers themselves.

    Args:
        grid: the blocks.
        stack: None, or how many matrices there are.
        structure: the family, at the size of a block.
        pooled: whether blocks share their numbers.
        demand: numbers that all blocks read.
        pool_size: P, numbers that there are; the demand where nothing is shared.
        pool_map: how they reach the blocks; None where those have numbers of their own.
        num_fixed: how many of them, the first ones, are frozen.
        scale: the factor of ΔW.
        start: where training starts.
    """

    grid: Grid
    stack: int | None
    structure: Structure
    pooled: bool
    demand: int
    pool_size: int
    pool_map: PoolMap | None
    num_fixed: int
    scale: float
    start: Start

    @classmethod
    def of(
        cls,
        options: UpdateOptions,
        out_features: int,
        in_features: int,
        stack: int | None,
        *,
        scope: str | None = None,
        saved: bool = False,
    ) -> ResolvedOptions:
        """The options at the size of a matrix out×in, or of a stack of them.

        Args:
            options: what the user says.
            out_features: rows of the matrix.
            in_features: its columns.
            stack: None, or how many matrices there are.
            scope: what shares its pool, if other matrices do.
            saved: whether the numbers were saved earlier, when a pool could be larger than what its blocks read.

        Raises:
            ValueError: they do not fit it, or not one another; the message names the option and the fix.
        """
        check_count("stack", stack, ", or None for a single matrix")
        grid = Grid.cut(out_features, in_features, block_size=options.block_size, num_splits=options.num_splits)
        structure = block_of(options, grid.rows, grid.cols)
        products.check(options.algorithm, structure)
        demand = grid.num_blocks * (stack or 1) * structure.numel
        pool_size = demand if options.pool_size is None else options.pool_size
        _check_shared("matrix" if scope is None else scope, options.pool_size)
        entries = out_features * in_features * (stack or 1)
        _check_amount(pool_size if scope is None else demand, demand, entries, options.structure_options, saved)
        ratio = options.fixed_ratio
        num_fixed = math.ceil(round(ratio * pool_size, 6))  # 0.07 · 100 is 7, not 7.000000000000001
        if num_fixed == pool_size:
            raise ValueError(f"fixed_ratio={ratio} freezes all {pool_size} numbers: lower it or raise pool_size")
        pooled = options.pool_size is not None or ratio > 0
        read_by = pool_maps.get(options.pool_map or pool_maps.DEFAULT)
        sizes = out_features, in_features
        return cls(
            grid=grid,
            stack=stack,
            structure=structure,
            pooled=pooled,
            demand=demand,
            pool_size=pool_size,
            pool_map=read_by(pool_size, demand // structure.numel, structure.numel) if pooled else None,
            num_fixed=num_fixed,
            scale=1.0 / in_features if options.scale == "1/in_features" else float(options.scale),
            start=Start.of(options.init_weights, structure, pooled=pooled, sizes=sizes),
        )


def block_of(options: UpdateOptions, rows: int, cols: int) -> Structure:
    """One block of the family that the options name.

    Raises:
        ValueError: the family is unknown, has not an option that is given as its own, or has no block of that size.
    """
    family = get(options.structure)
    _check_own(options)
    return family(rows, cols, **options.structure_options)


def check_options(options: UpdateOptions) -> None:
    """Raise ValueError if the options do not go together, whatever the sizes of the matrix."""
    _check_own(options)
    _check_shared(options.pool_scope, options.pool_size)
    block_size = None if options.block_size == "gcd" else options.block_size
    size = block_size or options.num_splits or 1
    Grid.cut(size, size, block_size=options.block_size, num_splits=options.num_splits)
    try:
        block = block_of(options, block_size or 1, block_size or 1)
    except ValueError:
        if block_size is not None:
            raise
        return  # how large blocks are depends on the matrix, and not every family has blocks of 1×1
    products.check(options.algorithm, block)


def _check_own(options: UpdateOptions) -> None:
    has = get(options.structure).own_options()
    for name, value in options.structure_options.items():
        if name not in has:
            others = families_with(name)
            mine = f"; {options.structure} has {', '.join(has) or 'no options of its own'}"
            fix = f", or use one of {', '.join(others)}" if others else mine
            raise ValueError(f"{name}={value} does not go with structure={options.structure!r}: leave it out{fix}")


def _check_shared(scope: PoolScope, pool_size: int | None) -> None:
    if scope != "matrix" and pool_size is None:
        raise ValueError(f"pool_scope={scope!r} shares a pool among matrices: give its pool_size")


def _check_amount(pool_size: int, demand: int, entries: int, own: Collection[str], saved: bool) -> None:
    """Hold the numbers of an update against what its blocks read, before anything of that size is made.

    Args:
        pool_size: P, numbers in the pool.
        demand: numbers that the blocks read.
        entries: entries of ΔW.
        own: names of the family's own options that are given.
        saved: whether the numbers were saved by a version that let a pool be larger than the demand.

    Raises:
        ValueError: there are far more numbers than entries, or numbers that no block reads; where they were saved so,
            the latter is a warning.
    """
    most = max(NUMBERS_PER_ENTRY * entries, 1024)
    if demand > most:
        fix = "".join(f"lower {name}, or " for name in own)
        raise ValueError(f"its blocks read {demand} numbers for an update of {entries} entries: {fix}cut fewer blocks")
    if pool_size <= demand:
        return
    what = f"pool_size={pool_size} is more than the {demand} numbers that all blocks of this matrix read"
    if not saved or pool_size > most:
        raise ValueError(f"{what}, so the rest would be dead: choose at most {demand}, cut more blocks, or take None")
    warnings.warn(f"{what}: {pool_size - demand} of them are dead; pool_size={demand} does the same", stacklevel=2)
