"""The pool's numbers are the same for ever: golden values from an independent SplitMix64 in plain integers."""

from __future__ import annotations

from collections import Counter

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from structune import pool
from structune.numerics import draws
from structune.numerics.hashing import derive_seed, hash64

WORD = 1 << 64
seeds = st.integers(-(2**63), 2**63 - 1)


def splitmix64(seed: int, count: int) -> list[int]:
    """The first `count` outputs of the generator as its authors publish it: add γ, then mix."""
    outputs, state = [], seed % WORD
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        outputs.append(z ^ (z >> 31))
    return outputs


def as_signed(word: int) -> int:
    return word - WORD if word >= WORD // 2 else word


def derived(seed: int, stream: int) -> int:
    """Output number `stream` of the generator seeded with `seed`."""
    return as_signed(splitmix64(seed, stream + 1)[stream])


def shuffles(pool_size: int, demand: int, seed: int) -> list[int]:
    """0 … P−1 in the order of their hashes, one shuffle after the other, cut to the demand."""
    rounds = -(-demand // pool_size)
    keys = [as_signed(word) for word in splitmix64(derived(seed, 1), rounds * pool_size)]
    order: list[int] = []
    for k in range(rounds):
        part = keys[k * pool_size : (k + 1) * pool_size]
        order += sorted(range(pool_size), key=part.__getitem__)
    return order[:demand]


def test_published_outputs() -> None:
    """The first outputs for seed 1234567, as printed in the generator's common test vector."""
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert splitmix64(1234567, 5) == published
    assert [word % WORD for word in hash64(torch.arange(5), 1234567).tolist()] == published


@given(seed=seeds, count=st.integers(1, 40))
def test_hash_is_splitmix64(seed: int, count: int) -> None:
    words = hash64(torch.arange(count), seed)
    assert words.dtype == torch.int64
    assert [word % WORD for word in words.tolist()] == splitmix64(seed, count)


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    counter = torch.arange(4)
    assert torch.equal(hash64(counter, -1), hash64(counter, WORD - 1))
    assert torch.equal(hash64(counter, 5), hash64(counter, 5 + 3 * WORD))


@given(seed=seeds, stream=st.integers(0, 30))
def test_derived_seeds(seed: int, stream: int) -> None:
    assert derive_seed(seed, stream) == derived(seed, stream)


GOLDEN_SEED = -2152535657050944081
GOLDEN_HASH = [-2152535657050944081, 7960286522194355700, 487617019471545679]
GOLDEN_MAP = [[2, 3, 1, 0], [4, 0, 3, 4], [2, 1, 0, 3]]
GOLDEN_PERMUTATION = [[2, 7, 4, 6, 3, 0, 1, 8, 9, 5]]
GOLDEN_UNIFORM = [14438051, 10531803, 1698517, -1235403, -15185693, 10653281]


def test_golden_values() -> None:
    """Adapters on disk depend on these numbers: if they change, `SAMPLER_VERSION` must."""
    assert pool.SAMPLER_VERSION == 1
    assert derive_seed(0, 0) == GOLDEN_SEED
    assert hash64(torch.arange(3), 0).tolist() == GOLDEN_HASH
    assert pool.index_map(5, 3, 4, seed=0).tolist() == GOLDEN_MAP
    assert pool.index_map(10, 1, 10, seed=-7).tolist() == GOLDEN_PERMUTATION
    assert draws.uniform(torch.arange(6), 0).tolist() == GOLDEN_UNIFORM


@given(pool_size=st.integers(1, 30), blocks=st.integers(1, 6), numel=st.integers(1, 12), seed=seeds)
def test_index_map(pool_size: int, blocks: int, numel: int, seed: int) -> None:
    """Shuffles in plain integers; every entry is used equally often, give or take one."""
    index = pool.index_map(pool_size, blocks, numel, seed)
    assert index.dtype == torch.int64
    assert index.device.type == "cpu"
    assert index.shape == (blocks, numel)
    assert index.flatten().tolist() == shuffles(pool_size, blocks * numel, seed)
    uses = Counter(index.flatten().tolist())
    counts = [uses[k] for k in range(pool_size)]
    assert sum(counts) == blocks * numel
    assert max(counts) - min(counts) <= 1


@given(blocks=st.integers(1, 8), numel=st.integers(1, 20), seed=seeds)
def test_a_pool_of_the_demand_shares_nothing(blocks: int, numel: int, seed: int) -> None:
    index = pool.index_map(blocks * numel, blocks, numel, seed)
    assert sorted(index.flatten().tolist()) == list(range(blocks * numel))


@given(pool_size=st.integers(1, 30), demands=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=seeds)
def test_matrices_read_on_where_others_end(pool_size: int, demands: list[int], seed: int) -> None:
    """Over all of them together every entry is used equally often, give or take one."""
    offsets = [sum(demands[:k]) for k in range(len(demands))]
    parts = [pool.index_map(pool_size, 1, d, seed, o).flatten().tolist() for d, o in zip(demands, offsets, strict=True)]
    assert [k for part in parts for k in part] == shuffles(pool_size, sum(demands), seed)


def test_maps_are_shuffled_and_differ() -> None:
    """Neither in order, nor the same in the next round or for the next seed; the same again for the same seed."""
    index = pool.index_map(100, 3, 100, seed=0)
    in_order = torch.arange(100)
    for row in index:
        assert (row == in_order).sum() < 10
    assert (index[0] == index[1]).sum() < 10
    assert (index[0] == pool.index_map(100, 1, 100, seed=1)[0]).sum() < 10
    torch.manual_seed(99)
    assert torch.equal(index, pool.index_map(100, 3, 100, seed=0))


@given(count=st.integers(1, 40), seed=seeds)
def test_uniform_integers(count: int, seed: int) -> None:
    """The hash's top 24 bits b as 2b − 2²⁴ + 1."""
    numbers = draws.uniform(torch.arange(count), seed)
    assert numbers.dtype == torch.int32
    assert numbers.tolist() == [2 * (w >> 40) - 2**24 + 1 for w in splitmix64(derived(seed, 2), count)]


def test_uniform_numbers_are_uniform_and_exact() -> None:
    numbers = draws.uniform(torch.arange(20_000), 3)
    assert (numbers % 2 != 0).all()
    assert numbers.abs().max() < 2**24
    values = numbers.float() / draws.ONE
    assert torch.equal(values.double(), numbers.double() / draws.ONE)
    assert values.abs().max() < 1
    assert scipy.stats.kstest(values.numpy(), "uniform", args=(-1, 2)).pvalue > 0.01
    assert not torch.equal(numbers, draws.uniform(torch.arange(20_000), 4))


def test_map_and_numbers_are_independent() -> None:
    """Both come from the same seed, through streams of their own."""
    ranks = pool.index_map(1000, 1, 1000, seed=5)[0].argsort().double()
    values = draws.uniform(torch.arange(1000), 5).double()
    assert abs(float(torch.corrcoef(torch.stack((ranks, values)))[0, 1])) < 0.1


@pytest.mark.parametrize("name", ["pool_size", "num_blocks", "block_numel"])
@pytest.mark.parametrize("value", [0, -3])
def test_wrong_sizes(name: str, value: int) -> None:
    sizes = {"pool_size": 4, "num_blocks": 2, "block_numel": 3, name: value}
    with pytest.raises(ValueError, match=f"{name}={value} must be at least 1"):
        pool.index_map(**sizes, seed=0)


def test_wrong_offset() -> None:
    with pytest.raises(ValueError, match="offset=-1 must be at least 0"):
        pool.index_map(4, 2, 3, seed=0, offset=-1)


def test_default_device_does_not_matter() -> None:
    """Made on the CPU even where the model is built on the meta device."""
    expected = pool.index_map(7, 2, 5, seed=1), draws.uniform(torch.arange(7), 1)
    position = torch.arange(7)
    with torch.device("meta"):
        actual = pool.index_map(7, 2, 5, seed=1), draws.uniform(position, 1)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
