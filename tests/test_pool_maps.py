"""How numbers of a pool reach the blocks: by hand, the same for ever, and moving alike for every size."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import structune
from structune import StructuredDelta, pool, pool_maps, structures
from structune.identity import Identity
from structune.pool_maps.projection import hadamard
from structune.shared_pool import SharedPool
from structune.testing import normalised_error, sample_inputs

WORD = 1 << 64
every_map = pytest.mark.parametrize("name", pool_maps.NAMES)
other_maps = pytest.mark.parametrize("name", pool_maps.NAMES[1:])


def hash64(counter: int, seed: int) -> int:
    """SplitMix64's output in plain integers."""
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def sign(counter: int, seed: int) -> int:
    """−1 where the top bit of the hash is set."""
    return -1 if hash64(counter, hash64(11, seed)) >> 63 else 1


def shuffle(size: int, seed: int) -> list[int]:
    """0 … size − 1 in the order of their hashes as signed integers."""
    words = [hash64(k, hash64(1, seed)) for k in range(size)]
    return sorted(range(size), key=lambda k: words[k] - WORD if words[k] >> 63 else words[k])


def matrix_by_hand(name: str, pool_size: int, demand: int, seed: int, offset: int) -> Tensor:
    """The map as a matrix (demand, pool_size), entry by entry, in plain integers and one division."""
    R = torch.zeros(demand, pool_size, dtype=torch.float64)
    if name == "projection":
        own = hash64(offset, hash64(12, seed))
        signs, places, rows = (hash64(stream, own) for stream in range(3))
        order = 1 << (max(pool_size, demand) - 1).bit_length()
        columns = shuffle(order, places)
        for d in range(demand):
            for p in range(pool_size):
                parity = (d & columns[p]).bit_count() % 2
                R[d, p] = (1 - 2 * parity) * sign(p, signs) * sign(d, rows) / math.sqrt(pool_size)
        return R
    index = pool.index_map(pool_size, 1, demand, seed, offset)[0].tolist()
    for d in range(demand):
        R[d, index[d]] = sign(offset + d, seed) if name == "signed" else 1
    return R


def matrix(name: str, pool_size: int, blocks: int, numel: int, seed: int, offset: int = 0) -> Tensor:
    """The same, read off a map column by column."""
    chosen = pool_maps.get(name)(pool_size, blocks, numel)
    tables = chosen.draw(seed, offset)
    assert tuple(table.shape for table in tables) == chosen.shapes
    assert all(table.dtype == torch.int64 for table in tables)
    units = torch.eye(pool_size, dtype=torch.float64)
    return torch.stack([chosen.read(unit, tables).flatten() for unit in units], dim=1)


@every_map
@given(
    pool_size=st.integers(1, 20), blocks=st.integers(1, 4), numel=st.integers(1, 9),
    seed=st.integers(-(2**63), 2**63 - 1), offset=st.integers(0, 50),
)  # fmt: skip
@settings(max_examples=40)
def test_maps_by_hand(name: str, pool_size: int, blocks: int, numel: int, seed: int, offset: int) -> None:
    expected = matrix_by_hand(name, pool_size, blocks * numel, seed % WORD, offset)
    assert normalised_error(matrix(name, pool_size, blocks, numel, seed, offset), expected) < 1e-14


def test_golden_tables() -> None:
    """Adapters on disk depend on these numbers."""
    assert [t.tolist() for t in pool_maps.get("signed")(5, 2, 4).draw(0)] == GOLDEN_SIGNED
    assert [t.tolist() for t in pool_maps.get("projection")(3, 2, 3).draw(0)] == GOLDEN_PROJECTION
    of_four = pool_maps.get("projection")(4, 2, 3)
    assert of_four.read(torch.tensor([1.0, 2.0, 4.0, 8.0]), of_four.draw(0)).flatten().tolist() == GOLDEN_READ


GOLDEN_SIGNED = [[[2, 8, 6, 0], [9, 5, 8, 4]]]
GOLDEN_PROJECTION = [[3, 4, 2], [2, 5, 1], [[8, 1, 2], [11, 12, 5]]]
GOLDEN_READ = [3.5, -5.5, -2.5, 4.5, 1.5, -7.5]


@pytest.mark.parametrize("size", [1, 2, 4, 64])
def test_hadamard(size: int) -> None:
    expected = torch.from_numpy(scipy.linalg.hadamard(size)).double()
    assert torch.equal(torch.stack([hadamard(unit) for unit in torch.eye(size, dtype=torch.float64)], dim=1), expected)


def test_a_projection_is_dense_and_its_rows_differ() -> None:
    """Every number reaches every entry alike; 13 numbers give as many different entries as there are to read."""
    R = matrix("projection", 13, 16, 31, seed=3) * math.sqrt(13)
    assert normalised_error(R.abs(), torch.ones_like(R)) < 1e-14
    assert abs(float(R.mean())) < 0.05
    assert len(R.unique(dim=0)) > 480  # of 496 of 8,192 that there can be
    off_diagonal = (R.T @ R / len(R)) - torch.eye(13)
    assert off_diagonal.abs().max() < 0.2
    assert not torch.equal(R, matrix("projection", 13, 16, 31, seed=4) * math.sqrt(13))
    assert not torch.equal(R, matrix("projection", 13, 16, 31, seed=3, offset=496) * math.sqrt(13))


SIZES = (13, 100, 400, 1000)


def moved(name: str, pool_size: int, structure: str, seed: int, x: Tensor, alike: bool, step: float = 0.01) -> Tensor:
    """‖ΔW x‖² after every number has moved by ± `step`; the signs are random, or `alike`."""
    delta = StructuredDelta(
        64, 64, structure=structure, num_splits=4, pool_size=pool_size, pool_map=name, seed=seed, dtype=torch.float64
    )
    steps = torch.ones(pool_size, dtype=torch.float64)
    if not alike:
        steps = sample_inputs(pool_size, seed=seed).sign()
    with torch.no_grad():
        delta.pool.copy_(step * steps)
        return delta(x).square().sum()


@every_map
@pytest.mark.parametrize("structure", ["circulant", "toeplitz"])
def test_a_step_moves_outputs_alike_for_every_pool_size(name: str, structure: str) -> None:
    """A random step of ±η on every number moves ‖ΔW x‖ for random x by the same amount, within 15 %."""
    demand = StructuredDelta(64, 64, structure=structure, num_splits=4).num_trainable
    x = sample_inputs(64, seed=77)
    expected = 0.01 * math.sqrt(64) * float(x.norm())
    for pool_size in (*(size for size in SIZES if size < demand), demand):
        squares = [moved(name, pool_size, structure, seed, x, alike=False) for seed in range(60)]
        assert 1 / 1.15 < math.sqrt(float(torch.stack(squares).mean())) / expected < 1.15, pool_size


@pytest.mark.parametrize("structure", structures.names())
def test_so_it_is_for_every_family(structure: str) -> None:
    """A small random step moves ‖ΔW x‖ by an amount of the family's own, within a factor of 1.6 for all maps and P."""
    demand = StructuredDelta(64, 64, structure=structure, num_splits=4).num_trainable
    x = sample_inputs(64, seed=77)
    sizes = {
        (name, pool_size): float(
            torch.stack([moved(name, pool_size, structure, seed, x, alike=False, step=1e-3) for seed in range(16)])
            .mean()
            .sqrt()
        )
        for name in pool_maps.NAMES
        for pool_size in (13, 100, demand)
        if pool_size <= demand
    }
    assert max(sizes.values()) < 1.6 * min(sizes.values()), sizes


@other_maps
@pytest.mark.parametrize("alike", [True, False])
def test_signs_make_it_so_for_every_input_and_step(name: str, alike: bool) -> None:
    """Also for the input and the step that are all ones, which the index map turns into √64 times as much."""
    x = torch.ones(64, dtype=torch.float64)
    expected = 0.01 * math.sqrt(64) * float(x.norm())
    for pool_size in (13, 100, 496):
        squares = [moved(name, pool_size, "toeplitz", seed, x, alike) for seed in range(60)]
        assert 1 / 1.25 < math.sqrt(float(torch.stack(squares).mean())) / expected < 1.25, pool_size
    assert moved("index", 13, "toeplitz", 0, x, alike=True).sqrt() > 7.9 * expected


@every_map
def test_gradients(name: str) -> None:
    chosen = pool_maps.get(name)(7, 3, 4)
    tables, numbers = chosen.draw(5), sample_inputs(7).requires_grad_()

    def read(numbers: Tensor) -> Tensor:
        return chosen.read(numbers, tables).pow(3)

    assert gradcheck(read, (numbers,))
    assert gradgradcheck(read, (numbers,))
    ensemble = torch.func.vmap(lambda n: chosen.read(n, tables))(torch.stack((numbers, -numbers)))
    torch.testing.assert_close(ensemble[0], chosen.read(numbers, tables))
    torch.testing.assert_close(ensemble[1], -ensemble[0])


@every_map
@pytest.mark.parametrize("structure", ["toeplitz", "cauchy", "toeplitz_like"])
@pytest.mark.parametrize("fixed_ratio", [0.0, 0.3])
def test_an_update_reads_through_its_map(name: str, structure: str, fixed_ratio: float) -> None:
    """Zero at the start with a gradient, exact gradients, and every number that is trained has a part in it."""
    delta = StructuredDelta(
        10, 7, structure=structure, num_splits=2, pool_size=11, pool_map=name, fixed_ratio=fixed_ratio, seed=2,
        dtype=torch.float64,
    )  # fmt: skip
    x = sample_inputs(3, 7)
    assert normalised_error(delta(x).detach(), torch.zeros(3, 10, dtype=torch.float64)) < 1e-12
    assert not delta.dense().detach().abs().max() > 1e-12
    delta(x).square().sum().add(delta(x).sum()).backward()
    assert delta.pool.grad is not None
    assert delta.pool.grad.all()

    def forward(numbers: Tensor) -> Tensor:
        return torch.func.functional_call(delta, {"pool": numbers}, (x,))

    assert gradcheck(forward, (0.3 * sample_inputs(delta.num_trainable).requires_grad_(),))
    R = matrix(name, 11, delta.num_blocks, delta.structure.numel, delta._effective_seed())
    assert normalised_error(delta.dealt().detach().flatten(), R @ delta.numbers().detach()) < 1e-12


@other_maps
@pytest.mark.parametrize("structure", ["circulant", "vandermonde"])
def test_matrices_that_share_a_pool_read_it_in_their_own_ways(name: str, structure: str) -> None:
    shared = SharedPool()
    options: dict[str, Any] = {"structure": structure, "num_splits": 2, "pool_size": 9, "pool_map": name, "seed": 1}
    deltas = [StructuredDelta(8, 8, shared_pool=shared, dtype=torch.float64, **options) for _ in range(3)]
    demand = deltas[0].num_blocks * deltas[0].structure.numel
    for k, delta in enumerate(deltas):
        R = matrix(name, 9, delta.num_blocks, delta.structure.numel, delta._effective_seed(), offset=k * demand)
        assert normalised_error(delta.dealt().detach().flatten(), R @ delta.numbers().detach()) < 1e-12
        assert all(not torch.equal(delta.tables[-1], other.tables[-1]) for other in deltas[:k])

    def forward(numbers: Tensor, x: Tensor) -> Tensor:
        for delta in deltas:
            x = x + torch.func.functional_call(delta, {"pool": numbers}, (x,))
        return x

    numbers, x = 0.3 * sample_inputs(9), sample_inputs(2, 8)
    assert gradcheck(forward, (numbers.requires_grad_(), x.requires_grad_()))


@other_maps
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_reads_in_fp32(name: str, dtype: torch.dtype) -> None:
    """Numbers are held in half precision; sums over them are not."""
    options: dict[str, Any] = {"structure": "toeplitz", "num_splits": 2, "pool_size": 30, "pool_map": name}
    delta, exact = StructuredDelta(16, 16, dtype=dtype, **options), StructuredDelta(16, 16, **options)
    with torch.no_grad():
        delta.pool.copy_(sample_inputs(30))
        exact.pool.copy_(delta.pool)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(delta.dense(), exact.dense())


@other_maps
def test_devices_copies_and_compiled_graphs(name: str) -> None:
    options: dict[str, Any] = {"structure": "circulant", "num_splits": 2, "pool_size": 9, "pool_map": name, "seed": 6}
    delta = StructuredDelta(12, 12, device="meta", **options)
    assert all(table.is_meta for table in delta.tables)
    delta.to_empty(device="cpu")
    whole = StructuredDelta(12, 12, **options)
    assert all(torch.equal(*tables) for tables in zip(delta.tables, whole.tables, strict=True))
    with torch.no_grad():
        whole.pool.copy_(sample_inputs(9))
    x = sample_inputs(4, 12, dtype=torch.float32)
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), whole(x))
    torch.testing.assert_close(copy.deepcopy(whole)(x), whole(x))
    other = StructuredDelta(12, 12, stream=4, **options)
    before = compiled(x)
    whole.load_state_dict({**other.state_dict(), "pool": whole.pool})
    torch.testing.assert_close(compiled(x), whole(x))
    assert not torch.allclose(compiled(x), before)


@pytest.mark.parametrize("own", pool_maps.NAMES)
@pytest.mark.parametrize("stored", pool_maps.NAMES)
def test_numbers_of_another_map_are_refused(own: str, stored: str) -> None:
    options: dict[str, Any] = {"structure": "toeplitz", "num_splits": 2, "pool_size": 9}
    saved, delta = (StructuredDelta(8, 8, pool_map=name, **options) for name in (stored, own))
    assert Identity.from_digits(saved.get_extra_state()) == saved.identity
    if own == stored:
        delta.load_state_dict(saved.state_dict())
        return
    with pytest.raises(RuntimeError, match=f"trained with pool_map='{stored}'.*configure pool_map='{stored}'"):
        delta.load_state_dict(saved.state_dict())
    old = {"pool": saved.pool, "seed": torch.tensor((0, 0))}
    if own != "index":
        with pytest.raises(RuntimeError, match="trained with pool_map='index'.*configure pool_map='index'"):
            delta.load_state_dict(old)


def test_repr_says_the_map() -> None:
    delta = StructuredDelta(4, 4, structure="toeplitz", num_splits=2, pool_size=3, pool_map="projection")
    assert "3 trainable in a pool, pool_map=projection, scale=1" in repr(delta)


def test_an_unknown_map() -> None:
    with pytest.raises(ValueError, match="pool_map='hash' must be one of 'index', 'signed', 'projection'"):
        StructuredDelta(4, 4, num_splits=2, pool_size=3, pool_map="hash")
    with pytest.raises(ValueError, match="pool_map=3 must be one of"):
        structune.hydra("toeplitz", pool_size=3, pool_map=3)
