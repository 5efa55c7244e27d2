"""What families say about their matrices: raw numbers, sums, nearest blocks and thin factors, each held to `dense`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.delta import StructuredDelta
from structune.testing import make_structure, sample_generators, sample_inputs

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
every_family = pytest.mark.parametrize("name", structures.names())
SUMMABLE = (
    *("circulant", "toeplitz", "hankel", "low_rank", "toeplitz_like", "hankel_like"),
    *("kronecker", "monarch", "block_diagonal"),
)


@every_family
@pytest.mark.parametrize("size", [(5, 4), (4, 7)])
def test_raw_numbers_of_generators(name: str, size: tuple[int, int]) -> None:
    """`to_raw` undoes `from_raw` for raw numbers in [−1, 1], one side and the other."""
    structure = make_structure(name, *size)
    raw = {key: sample_inputs(2, *shape, seed=3).clamp(-1, 1) for key, shape in structure.shapes.items()}
    generators = structure.from_raw(**raw)
    back = structure.to_raw(**generators)
    assert back is not None and back.keys() == raw.keys()
    for key, value in raw.items():
        torch.testing.assert_close(back[key], value, rtol=0, atol=1e-6)  # steep where a sine is flat
    again = structure.from_raw(**back)
    assert all(torch.allclose(again[key], generators[key], rtol=1e-12, atol=1e-12) for key in generators)


@pytest.mark.parametrize(("name", "key"), [("vandermonde", "v"), ("cauchy", "u"), ("cauchy_like", "v")])
def test_nodes_that_no_raw_number_has(name: str, key: str) -> None:
    structure = make_structure(name, 3, 3)
    generators = sample_generators(structure)
    with pytest.raises(ValueError, match=r"lies outside of \[−1, 1\]: no raw number is mapped there"):
        structure.to_raw(**generators | {key: generators[key] + 5})


@every_family
@pytest.mark.parametrize("size", [(5, 4), (4, 7), (6, 6)])
def test_a_weighted_sum_of_blocks(name: str, size: tuple[int, int]) -> None:
    structure = make_structure(name, *size)
    terms = [(weight, structure, sample_generators(structure, 2, seed=k)) for k, weight in enumerate((0.5, -2.0, 3.0))]
    total = type(structure).sum_of(terms)
    if name in SUMMABLE:
        assert total is not None
    if total is not None:
        expected = sum(weight * block.dense(**generators) for weight, block, generators in terms)
        torch.testing.assert_close(total[0].dense(**total[1]), expected, **CLOSE)


def test_ranks_add_up() -> None:
    blocks = [make_structure("low_rank", 5, 4, rank=rank) for rank in (1, 3)]
    terms = [(2.0, block, sample_generators(block)) for block in blocks]
    structure, generators = type(blocks[0]).sum_of(terms) or pytest.fail("low rank adds up")
    assert structure == make_structure("low_rank", 5, 4, rank=4)
    torch.testing.assert_close(
        structure.dense(**generators), sum(2 * block.dense(**values) for _, block, values in terms), **CLOSE
    )


@pytest.mark.parametrize("name", ["low_rank", "monarch", "kronecker"])
def test_the_nearest_block(name: str) -> None:
    """A block is its own nearest; for any other matrix no generator can be moved towards it."""
    structure = make_structure(name, 6, 4, rank=1, terms=1)
    W = structure.dense(**sample_generators(structure, 2, 3))
    found = structure.nearest(W)
    assert found is not None
    torch.testing.assert_close(structure.dense(**found), W, rtol=1e-9, atol=1e-9)
    target = sample_inputs(2, 3, 6, 4, seed=8)
    leaves = {key: value.detach().requires_grad_() for key, value in (structure.nearest(target) or {}).items()}
    distance = (structure.dense(**leaves) - target).square().sum()
    slopes = torch.autograd.grad(distance, tuple(leaves.values()))
    assert 0.05 < float(distance.detach() / target.square().sum()) < 1
    assert all(slope.abs().max() < 1e-10 for slope in slopes)


@pytest.mark.parametrize("rank", [1, 3, 4, 6])
def test_the_nearest_low_rank_block_leaves_the_last_singular_values(rank: int) -> None:
    structure = make_structure("low_rank", 6, 4, rank=rank)
    target = sample_inputs(6, 4)
    left = torch.linalg.svdvals(target)[rank:].square().sum()
    found = structure.dense(**structure.nearest(target) or {})
    assert float((found - target).square().sum()) == pytest.approx(float(left), rel=1e-9, abs=1e-24)


@every_family
def test_thin_factors(name: str) -> None:
    structure = make_structure(name, 5, 4)
    generators = sample_generators(structure, 2, 3)
    factors = structure.thin_factors(**generators)
    assert (factors is not None) == (name == "low_rank")
    if factors is not None:
        torch.testing.assert_close(factors[0] @ factors[1], structure.dense(**generators), **CLOSE)


@every_family
def test_generators_can_be_set(name: str) -> None:
    """δ becomes what gives blocks these generators, in a grid that pads and with a start that is not zero."""
    delta = StructuredDelta(10, 7, structure=name, num_splits=3, dtype=torch.float64, seed=4)
    block = delta.structure
    wanted = sample_generators(block, 3, 3, seed=6)
    if block.to_raw(**wanted) is None:
        with pytest.raises(ValueError, match="do not say which numbers have these generators"):
            delta.set_generators(**wanted)
        return
    delta.set_generators(**wanted)
    found = delta.generators()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=rf"{name}: generators"):
        delta.set_generators(other=torch.zeros(()))


def test_generators_from_a_pool_cannot_be_set() -> None:
    delta = StructuredDelta(8, 8, structure="toeplitz", num_splits=2, pool_size=5)
    wanted: dict[str, Tensor] = {"t": torch.zeros(2, 2, 7)}
    with pytest.raises(ValueError, match="share their numbers"):
        delta.set_generators(**wanted)
