"""What the arguments of an update may be: each check names the argument, its value and the fix."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, TypeAlias

from structune import structures
from structune.structures import RankedStructure, Structure

InitWeights: TypeAlias = bool | Literal["xavier_uniform", "kaiming_uniform"]
Scale: TypeAlias = float | Literal["1/in_features"]


def as_python(value: Any) -> Any:
    """NumPy's numbers and arrays, and tensors, as Python's numbers and lists, in containers too; all else as it is."""
    if isinstance(value, dict):
        return {key: as_python(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(as_python(inner) for inner in value)
    return value.tolist() if hasattr(value, "shape") and hasattr(value, "tolist") else value


def block_structure(name: str, rows: int, cols: int, rank: int | None) -> Structure:
    """The family `name` at block size; `rank` only where the family has one.

    Raises:
        ValueError: unknown family, or a rank that it does not have.
    """
    family = structures.get(name)
    if issubclass(family, RankedStructure):
        return family(rows, cols, 1 if rank is None else rank)
    if rank is not None:
        ranked = [n for n in structures.names() if issubclass(structures.get(n), RankedStructure)]
        raise ValueError(
            f"rank={rank} does not go with structure={name!r}: leave it out, or use one of {', '.join(ranked)}"
        )
    return family(rows, cols)


def check_pool(pool_size: int | None, fixed_ratio: float) -> None:
    """Raise ValueError unless pool_size is None or a positive integer and 0 ≤ fixed_ratio < 1."""
    if pool_size is not None and (isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1):
        raise ValueError(
            f"pool_size={pool_size!r} must be an integer of at least 1, or None for numbers of each block's own"
        )
    if isinstance(fixed_ratio, bool) or not isinstance(fixed_ratio, (int, float)) or not 0 <= fixed_ratio < 1:
        raise ValueError(f"fixed_ratio={fixed_ratio!r} must be a number in [0, 1): at 1 nothing would be left to train")


NUMBERS_PER_ENTRY = 4
"""More numbers than this for each entry of ΔW are a mistake, or an attack on memory."""


def check_amount(pool_size: int, demand: int, entries: int, *, saved: bool = False) -> None:
    """Hold the numbers of an update against what its blocks read, before anything of that size is made.

    Args:
        pool_size: P, numbers in the pool.
        demand: numbers that the blocks read.
        entries: entries of ΔW.
        saved: whether the numbers were saved by a version that let a pool be larger than the demand.

    Raises:
        ValueError: there are far more numbers than entries, or numbers that no block reads; where they were saved so,
            the latter is a warning.
    """
    most = max(NUMBERS_PER_ENTRY * entries, 1024)
    if demand > most:
        raise ValueError(
            f"its blocks read {demand} numbers for an update of {entries} entries: lower rank, or cut fewer blocks"
        )
    if pool_size <= demand:
        return
    what = f"pool_size={pool_size} is more than the {demand} numbers that all blocks of this matrix read"
    if not saved or pool_size > most:
        raise ValueError(f"{what}, so the rest would be dead: choose at most {demand}, cut more blocks, or take None")
    warnings.warn(f"{what}: {pool_size - demand} of them are dead; pool_size={demand} does the same", stacklevel=2)


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise ValueError unless the seed is an integer that 64 bits hold."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"{name}={seed!r} must be an integer from −2⁶³ to 2⁶³ − 1")


def check_stack(stack: int | None) -> None:
    """Raise ValueError unless stack is None or a positive integer."""
    if stack is not None and (isinstance(stack, bool) or not isinstance(stack, int) or stack < 1):
        raise ValueError(f"stack={stack!r} must be an integer of at least 1, or None for a single matrix")


LARGEST_SCALE = 1e18
"""Gradients grow with the scale, and optimisers square them: from 10¹⁹ on, or below 10⁻¹⁹, fp32 cannot hold that."""


def check_strength(scale: float, name: str) -> None:
    """Raise ValueError unless ΔW times `scale`, and what is trained with it, stays a number; 0 is one."""
    if not abs(scale) <= LARGEST_SCALE:
        raise ValueError(
            f"{name}={scale!r} must be a finite number of at most {LARGEST_SCALE:g} in size: fp32 overflows beyond"
        )


def resolve_scale(scale: Scale, in_features: int) -> float:
    """The factor of ΔW as a number.

    Raises:
        ValueError: neither "1/in_features" nor a finite number that is not zero, or one that fp32 cannot work with.
    """
    if scale == "1/in_features":
        return 1.0 / in_features
    if isinstance(scale, (str, bool)) or not isinstance(scale, (int, float)) or scale in (0, math.inf, -math.inf):
        raise ValueError(f"scale={scale!r} must be a finite number other than 0, or '1/in_features'")
    check_strength(scale, "scale")
    if abs(scale) < 1 / LARGEST_SCALE:
        raise ValueError(
            f"scale={scale!r} must be at least {1 / LARGEST_SCALE:g} in size: fp32 would leave nothing of the update"
        )
    return float(scale)


def start_bound(init_weights: InitWeights, out_features: int, in_features: int) -> float | None:
    """Bound of the papers' random start, uniform on (−bound, bound); None for the start at ΔW = 0.

    Raises:
        ValueError: no such start.
    """
    if init_weights is True:
        return None
    if init_weights is False or init_weights == "xavier_uniform":
        return math.sqrt(6 / (in_features + out_features))
    if init_weights == "kaiming_uniform":
        return math.sqrt(1 / in_features)
    raise ValueError(f"init_weights={init_weights!r} must be True, False, 'xavier_uniform' or 'kaiming_uniform'")
