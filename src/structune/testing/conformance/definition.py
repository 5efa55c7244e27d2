"""What a block is."""

from __future__ import annotations

import math
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing.conformance.cases import (
    EXACT,
    NONDETERMINISM,
    Size,
    block,
    case,
    forms,
    grids,
    sizes,
    small_sizes,
    wide_dtypes,
)
from structune.testing.errors import assert_close
from structune.testing.oracles import oracle_dense
from structune.testing.samples import make_structure, sample_generators, sample_inputs

TRIED = 12
"""Blocks of all sizes up to this are asked for, to see what is refused and how."""


class Definition:
    """Blocks, their sizes and options, their derivatives and their displacement."""

    @sizes
    @grids
    def test_dense_is_the_definition(self, family: str, size: Size, grid: Size) -> None:
        for structure in forms(family, size):
            generators = sample_generators(structure, *grid)
            assert_close(
                {"W": structure.dense(**generators)},
                {"W": oracle_dense(structure, **generators)},
                EXACT,
                str(structure),
            )

    @small_sizes
    def test_dense_broadcasts_leading_dimensions(self, family: str, size: Size) -> None:
        """Each generator has a leading dimension of its own; the blocks are those of the expanded generators."""
        structure = block(family, size)
        names = list(structure.shapes)
        narrow, full = {}, {}
        for k, name in enumerate(names):
            batch = [2 if axis == k else 1 for axis in range(len(names))]
            narrow[name] = sample_generators(structure, *batch, seed=k)[name]
            full[name] = narrow[name].expand(*[2] * len(names), *structure.shapes[name])
        assert_close({"W": structure.dense(**narrow)}, {"W": oracle_dense(structure, **full)}, EXACT, str(structure))

    @small_sizes
    def test_dense_is_twice_differentiable(self, family: str, size: Size) -> None:
        """First and second derivatives with respect to each generator alone and to all together, by differences."""
        structure, _, generators = case(family, size, (1, 2))
        names = list(generators)
        for chosen in [{name} for name in names] + [set(names)]:
            inputs = tuple(generators[name].detach().requires_grad_(name in chosen) for name in names)

            def dense(*numbers: Tensor) -> Tensor:
                return structure.dense(**dict(zip(names, numbers, strict=True)))

            torch.autograd.gradcheck(dense, inputs, nondet_tol=NONDETERMINISM)
            torch.autograd.gradgradcheck(dense, inputs, nondet_tol=NONDETERMINISM)

    @small_sizes
    def test_a_block_is_known_by_its_integers(self, family: str, size: Size) -> None:
        """Generators have names and shapes; name, sizes and options make an equal block with the same generators."""
        for structure in forms(family, size):
            assert structure.shapes, f"{structure} has no generators"
            for name, shape in structure.shapes.items():
                assert all(type(n) is int and n >= 1 for n in shape), f"{name} has the shape {shape}"
            again = structures.get(family)(*astuple(structure))
            assert again == structure, f"{again} is made of the integers of {structure}"
            assert hash(again) == hash(structure), f"{again} has another hash"
            assert list(again.shapes.items()) == list(structure.shapes.items()), "generators change their order"

    def test_sizes(self, family: str) -> None:
        """A block is either made, with M×N entries, or refused in words that name the family and the sizes."""
        taken = 0
        for rows in range(1, TRIED + 1):
            for cols in range(1, TRIED + 1):
                try:
                    structure = make_structure(family, rows, cols)
                except ValueError as error:
                    said = str(error)
                    named = family in said and (str(rows) in said or str(cols) in said)
                    assert named, f"{rows}×{cols} is refused without family and sizes: {said}"
                    continue
                taken += 1
                W = structure.dense(**sample_generators(structure))
                assert W.shape == (rows, cols), f"{structure} has a matrix of {tuple(W.shape)}"
        if not taken:
            block(family, (TRIED, TRIED))  # raises where larger ones are refused too

    def test_own_options(self, family: str) -> None:
        """Each has a default, refuses what is no integer of at least 1, and one more, or 1, changes the block."""
        defaults = structures.get(family).own_options()
        usual = block(family, (12, 7), **defaults)
        for name, default in defaults.items():
            assert default == getattr(usual, name), f"{name}={getattr(usual, name)} where {default} is the default"
            for wrong in (0, -1, 1.5, True, "2"):
                given: dict[str, Any] = {**defaults, name: wrong}
                with pytest.raises(ValueError, match=name):
                    structures.get(family)(usual.rows, usual.cols, **given)
            others = (block(family, (usual.rows, usual.cols), **{**defaults, name: new}) for new in (default + 1, 1))
            assert any(_differ(usual, other) for other in others), f"{name} changes nothing"

    @small_sizes
    @wide_dtypes
    def test_dtypes_are_kept(self, family: str, size: Size, dtype: torch.dtype) -> None:
        """Whatever is made of generators has their dtype, and so have generators made of raw numbers."""
        structure = block(family, size)
        raw = {name: value.to(dtype) for name, value in sample_generators(structure, 1, 1).items()}
        generators = structure.from_raw(**raw)
        first = torch.zeros(1, dtype=torch.int64, device=next(iter(raw.values())).device)
        made = {f"from_raw {name}": value for name, value in generators.items()} | {
            "dense": structure.dense(**generators),
            "strip": structure.strip(0, 1, **generators),
            "lookup": structure.lookup(first, first, **generators),
        }
        grad = sample_inputs(1, 1, structure.rows, structure.cols, dtype=dtype)
        made |= {f"pullback {name}": value for name, value in structure.pullback(grad, 0, **generators).items()}
        for what, value in made.items():
            assert value.dtype == dtype, f"{what} gives {value.dtype} from {dtype}"

    @small_sizes
    def test_stays_on_its_device(self, family: str, size: Size) -> None:
        """Nothing is made on another device than that of the numbers: here meta, which holds none."""
        structure = block(family, size)
        raw = {name: value.to("meta") for name, value in sample_generators(structure, 2, 3).items()}
        generators = structure.from_raw(**raw)
        first = torch.zeros(1, dtype=torch.int64, device="meta")
        made = {f"from_raw {name}": value for name, value in generators.items()} | {
            "dense": structure.dense(**generators),
            "strip": structure.strip(0, 1, **generators),
            "lookup": structure.lookup(first, first, **generators),
        }
        grad = torch.ones(2, 3, structure.rows, structure.cols, dtype=torch.float64, device="meta")
        made |= {f"pullback {name}": value for name, value in structure.pullback(grad, 0, **generators).items()}
        for what, value in made.items():
            assert value.is_meta, f"{what} is on {value.device}"

    @sizes
    def test_displacement_rank(self, family: str, size: Size) -> None:
        """rank(A W − W B) is at most the rank declared, which is below n, and a random matrix's is larger.

        Without a square there is no displacement, and a family need not have any.
        """
        structure = block(family, size)
        generators = sample_generators(structure)
        pair, declared = structure.displacement(**generators), structure.displacement_rank
        if structure.rows != structure.cols or declared is None:
            assert pair is None, f"a pair without a square, or without a rank: {structure}"
            return
        assert pair is not None, f"a displacement rank of {declared}, and no pair"
        W = structure.dense(**generators)
        A, B = (operator.to(W) for operator in pair)
        rank = _displacement_rank(A, B, W)
        assert rank <= declared, f"rank {rank}, at most {declared} declared"
        assert declared < max(structure.rows, 3), "a displacement rank of n says nothing"
        if declared < structure.rows and structure.rows > 1:
            other = _displacement_rank(A, B, sample_inputs(*W.shape) * W.square().mean().sqrt())
            assert other > declared, f"a random matrix has the displacement rank {other} too: the pair says nothing"

    def test_what_it_recommends(self, family: str) -> None:
        """A learning rate, a number of blocks, a marker for figures, and a growth of its products that is a growth."""
        kind = structures.get(family)
        assert 0 < kind.learning_rate < 1, f"learning_rate={kind.learning_rate}"
        assert kind.num_splits >= 1, f"num_splits={kind.num_splits}"
        assert isinstance(kind.marker, str), f"marker={kind.marker!r}"
        assert kind.marker, "no marker"
        steps = [2**k for k in range(1, 14)]
        growth = [float(kind.growth(n)) for n in steps]
        assert all(math.isfinite(value) and value > 0 for value in growth), f"growth {growth} at {steps}"
        assert all(a < b for a, b in pairwise(growth)), f"growth {growth} at {steps} does not grow"


def _displacement_rank(A: Tensor, B: Tensor, W: Tensor) -> int:
    """rank(A W − W B), up to rounding."""
    singular_values = torch.linalg.svdvals(A @ W - W @ B)
    scale = torch.linalg.matrix_norm(W, 2) * (torch.linalg.matrix_norm(A, 2) + torch.linalg.matrix_norm(B, 2))
    return int((singular_values > EXACT * scale).sum())


def _differ(one: Structure, other: Structure) -> bool:
    """Whether two blocks have generators of different shapes, or make different matrices of the same."""
    if (one.rows, one.cols, one.shapes) != (other.rows, other.cols, other.shapes):
        return True
    generators = sample_generators(one)
    return not torch.equal(one.dense(**generators), other.dense(**generators))
