"""What the suite's tests are run on, and how far a result may be from the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing.device import DEVICE
from structune.testing.errors import assert_close
from structune.testing.mutations import MUTATIONS
from structune.testing.outcomes import Matmul, outcomes
from structune.testing.samples import make_structure, sample_generators, sample_inputs

EXACT = 1e-12
"""Normalised error allowed in fp64."""

ROUNDING_FLOOR = 1.5
"""Unit roundoffs always allowed below fp64: thin factors round what lies between them, a dense product does not."""

TRANSFORM_FLOOR = 8
"""The same in fp32, 5e-7: a transform spreads rounding over its whole length, a short dense product does not."""

ROUNDED = 0.02
"""Normalised error allowed where numbers are rounded to bf16 or fp16 on their way, whatever the size of the truth."""

TOKENS = 3

DRAWS = 8
"""How many random cases an error is averaged over."""

NONDETERMINISM = 0.0 if DEVICE.type == "cpu" else EXACT
"""How far two backward passes may be apart: elsewhere sums are taken in the order in which threads arrive."""

REACH = 128
"""How far from the sizes of a test those are looked for that a family takes."""

Size: TypeAlias = tuple[int, int]
Draw: TypeAlias = tuple[Tensor, dict[str, Tensor]]


def _shapes(name: str, values: tuple[Size, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=[f"{a}x{b}" for a, b in values])


small_sizes = _shapes("size", ((1, 1), (2, 2), (3, 5), (5, 3)))
sizes_from_two = _shapes("size", ((2, 2), (7, 12), (12, 7), (101, 101)))
sizes = _shapes("size", ((1, 1), (2, 2), (7, 7), (12, 12), (101, 101), (7, 12), (12, 7), (1, 5), (5, 1)))
grids = _shapes("grid", ((1, 1), (2, 3)))


def _dtypes(*dtypes: torch.dtype) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("dtype", dtypes, ids=lambda dtype: str(dtype).removeprefix("torch."))


narrow_dtypes = _dtypes(torch.float32, torch.bfloat16, torch.float16)
wide_dtypes = _dtypes(torch.float64, torch.float32)
all_dtypes = _dtypes(torch.float64, torch.float32, torch.bfloat16, torch.float16)


def block(family: str, size: Size, **options: int) -> Structure:
    """A block of that size, or where the family refuses it, of the next larger one that it takes."""
    refusal: Exception | None = None
    for more in range(REACH + 1):
        for cols in range(more + 1):
            try:
                return make_structure(family, size[0] + more - cols, size[1] + cols, **options)
            except ValueError as error:
                refusal = refusal or error
    raise AssertionError(f"{family} takes no block near {size}: {refusal}")


def forms(family: str, size: Size) -> list[Structure]:
    """Blocks with all own options above their defaults, and with each at 1 and further above in turn."""
    defaults = structures.get(family).own_options()
    in_turn = ({**defaults, name: value} for name, default in defaults.items() for value in (default + 2, 1))
    chosen = [{}, defaults, *in_turn]
    return list(dict.fromkeys(block(family, size, **options) for options in chosen))


def with_generators(structure: Structure, grid: Size) -> Draw:
    """Inputs (T, Q, N) and generators (P, Q, …), fp64."""
    return sample_inputs(TOKENS, grid[1], structure.cols), sample_generators(structure, *grid)


def case(
    family: str, size: Size, grid: Size, dtype: torch.dtype = torch.float64, tokens: int = TOKENS
) -> tuple[Structure, Tensor, dict[str, Tensor]]:
    """A block, inputs (T, Q, N) in `dtype`, and generators (P, Q, …) in at least fp32."""
    structure = block(family, size)
    return (
        structure,
        sample_inputs(tokens, grid[1], structure.cols, dtype=dtype),
        sample_generators(structure, *grid, dtype=widened(dtype)),
    )


def widened(dtype: torch.dtype) -> torch.dtype:
    """What generators are held in beside inputs of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def draws_of(family: str, size: Size, grid: Size, dtype: torch.dtype) -> tuple[Structure, list[Draw]]:
    """A block and `DRAWS` random inputs with generators, as `case` makes them."""
    structure = block(family, size)
    return structure, [
        (
            sample_inputs(TOKENS, grid[1], structure.cols, dtype=dtype, seed=1000 + seed),
            sample_generators(structure, *grid, dtype=widened(dtype), seed=seed),
        )
        for seed in range(DRAWS)
    ]


def stacked(matmul: Matmul, structure: Structure, draws: Iterable[Draw]) -> dict[str, Tensor]:
    """The outcomes of all draws together, so that an error is an average and not the luck of a few numbers."""
    results = [outcomes(matmul, structure, x, generators) for x, generators in draws]
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def assert_mistakes_noticed(
    actual: Mapping[str, Tensor], exact: Mapping[str, Tensor], bounds: float | Mapping[str, float]
) -> None:
    """Raise unless these bounds reject each result with each of `MUTATIONS`."""
    for name, value in actual.items():
        for mutation, mutate in MUTATIONS.items():
            if value.shape[-1] > 1 or mutation in ("zeros", "sign flip"):
                with pytest.raises(AssertionError, match="normalised error"):
                    assert_close({name: mutate(value)}, {name: exact[name]}, bounds, mutation)


def with_strides(value: Tensor) -> Tensor:
    """The same numbers, apart in memory and with the axes the other way round."""
    padded = value.new_full((*reversed(value.shape), 2), float("nan"))
    view = padded[..., 0].permute(*reversed(range(value.dim())))
    return view.copy_(value)
