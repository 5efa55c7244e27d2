"""What is one block again: the difference of two, a sum of several, the nearest to a matrix; and thin factors."""

from __future__ import annotations

import torch
from torch import Tensor

from structune import structures
from structune.structures import Structure
from structune.testing.conformance.cases import EXACT, Size, forms, small_sizes
from structune.testing.errors import assert_close
from structune.testing.samples import sample_generators, sample_inputs

CLOSE = 1e-4
"""How far two blocks are apart whose difference must not cancel."""

UNCANCELLED = 1e-5
"""How precise it then is in fp32; subtracting two matrices would leave three digits."""


class Differences:
    """`difference`, `sum_of`, `nearest` and `thin_factors`, for families that have them."""

    @small_sizes
    def test_difference(self, family: str, size: Size) -> None:
        """S(a) − S(b) is the block that `difference` says, with the gradient of a, fp64."""
        for structure in forms(family, size):
            a, b = (sample_generators(structure, 1, 2, seed=seed) for seed in (0, 1))
            leaves = {name: value.requires_grad_() for name, value in a.items()}
            merged = structure.difference(leaves, b)
            if merged is None:
                continue
            found, expected = _dense(merged, structure), structure.dense(**leaves) - structure.dense(**b)
            assert_close({"W": found.detach()}, {"W": expected.detach()}, EXACT, f"difference of {structure}")
            grad = sample_inputs(*expected.shape, seed=3)
            gradients = [torch.autograd.grad(W, tuple(leaves.values()), grad) for W in (found, expected)]
            actual, wanted = (dict(zip(leaves, g, strict=True)) for g in gradients)
            assert_close(actual, wanted, EXACT, f"gradient of a difference of {structure}")

    @small_sizes
    def test_small_differences(self, family: str, size: Size) -> None:
        """Nothing cancels in fp32, however close the two are."""
        for structure in forms(family, size):
            b = sample_generators(structure, 1, 2, dtype=torch.float32)
            a = {
                name: value + CLOSE * sample_inputs(*value.shape, dtype=torch.float32, seed=k)
                for k, (name, value) in enumerate(b.items())
            }
            merged = structure.difference(a, b)
            if merged is None:
                continue
            exact = structure.dense(**_doubled(a)) - structure.dense(**_doubled(b))
            assert_close({"W": _dense(merged, structure)}, {"W": exact}, UNCANCELLED, f"difference of {structure}")

    @small_sizes
    def test_sum_of_blocks(self, family: str, size: Size) -> None:
        """Σ weight · S(generators), of one term, of three, and of blocks with other options where there are any."""
        blocks = forms(family, size)
        for chosen in ([blocks[0]], [blocks[0]] * 3, blocks * 2):
            terms = [
                (weight, structure, sample_generators(structure, 1, 2, seed=k))
                for k, (weight, structure) in enumerate(zip((0.5, -2.0, 3.0, 1.0, 0.1, -1.0), chosen, strict=False))
                if (structure.rows, structure.cols) == (blocks[0].rows, blocks[0].cols)
            ]
            merged = structures.get(family).sum_of(terms)
            if merged is None:
                continue
            expected = sum((weight * block.dense(**generators) for weight, block, generators in terms), torch.zeros(()))
            assert_close(
                {"W": _dense(merged, blocks[0])}, {"W": expected}, EXACT, f"sum of {len(terms)} {family} blocks"
            )

    @small_sizes
    def test_nearest_block(self, family: str, size: Size) -> None:
        """Where it is known: a block is its own nearest, and near another matrix nothing comes nearer by any step."""
        for structure in forms(family, size):
            W = structure.dense(**sample_generators(structure, 1, 2))
            found = structure.nearest(W)
            if found is None:
                continue
            assert_close({"W": structure.dense(**found)}, {"W": W}, 1e-9, f"nearest {structure}")
            target = sample_inputs(*W.shape, seed=8)
            nearest = {
                name: value.detach().requires_grad_() for name, value in (structure.nearest(target) or {}).items()
            }
            distance = (structure.dense(**nearest) - target).square().sum()
            slopes = torch.autograd.grad(distance, tuple(nearest.values()))
            steepest = max(float(slope.abs().max()) for slope in slopes)
            assert steepest < 1e-9, f"{structure}: a step brings a block nearer than the nearest, by {steepest:.2g}"
            assert distance < target.square().sum(), f"{structure}: zero is nearer than the nearest"

    @small_sizes
    def test_thin_factors(self, family: str, size: Size) -> None:
        for structure in forms(family, size):
            generators = sample_generators(structure, 1, 2)
            factors = structure.thin_factors(**generators)
            if factors is not None:
                G, H = factors
                assert_close({"W": G @ H}, {"W": structure.dense(**generators)}, EXACT, f"thin factors of {structure}")


def _dense(merged: tuple[Structure, dict[str, Tensor]], one: Structure) -> Tensor:
    """The matrix of a merged block, which has the sizes of the one it was made of."""
    structure, generators = merged
    assert (structure.rows, structure.cols) == (one.rows, one.cols), f"{structure} was made of {one}"
    return structure.dense(**generators)


def _doubled(generators: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in generators.items()}
