"""StructuredDelta: what ΔW is, how it starts, what is trained, and what comes back from disk."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from structune import structures
from structune.delta import StructuredDelta
from structune.structures import RankedStructure
from structune.testing import algorithms, normalised_error, oracle_dense, sample_inputs

OUT, IN = 10, 7
FAMILIES = structures.names()
LINEAR = ("circulant", "toeplitz", "hankel")
SOURCES: dict[str, dict[str, Any]] = {
    "own": {},
    "own, partly frozen": {"fixed_ratio": 0.3},
    "pooled": {"pool_size": 11},
    "pooled, partly frozen": {"pool_size": 11, "fixed_ratio": 0.5},
}
STARTS = (True, False, "xavier_uniform", "kaiming_uniform")

every_family = pytest.mark.parametrize("family", FAMILIES)
every_source = pytest.mark.parametrize("source", SOURCES)
every_start = pytest.mark.parametrize("start", STARTS)


def make(family: str, source: str = "own", **changes: Any) -> StructuredDelta:
    """A ΔW of 10×7 in a 3×3 grid of 4×3 blocks, which pads both ways."""
    kwargs: dict[str, Any] = {"num_splits": 3, "seed": 5} | SOURCES[source]
    if issubclass(structures.get(family), RankedStructure):
        kwargs["rank"] = 2
    return StructuredDelta(OUT, IN, structure=family, **kwargs | changes)


def trained(delta: StructuredDelta, size: float = 0.3, seed: int = 9) -> StructuredDelta:
    """The same module after its numbers have moved."""
    with torch.no_grad():
        delta.pool.copy_(size * sample_inputs(delta.num_trainable, seed=seed))
    return delta


def variants(delta: StructuredDelta) -> Iterator[StructuredDelta]:
    """One for each algorithm, with the same numbers."""
    for name in (*algorithms(delta.structure), "auto"):
        other = copy.deepcopy(delta)
        other.algorithm = name
        yield other


def by_hand(delta: StructuredDelta, start: bool | str, scale: float = 1.0) -> Tensor:
    """ΔW in fp64 by plain loops over blocks and entries, from `pool`, `index` and `start` alone."""
    bounds = {False: math.sqrt(6 / (IN + OUT)), "xavier_uniform": math.sqrt(6 / (IN + OUT)), True: 1.0}
    bound = bounds.get(start, math.sqrt(1 / IN))
    frozen = delta.pool_size - delta.num_trainable
    begin = [0.0] * delta.pool_size if delta.start is None else [k * 2.0**-24 * bound for k in delta.start.tolist()]
    step = {"vandermonde": 0.1, "cauchy": 10.0}.get(delta.structure.name, 1.0)
    now = [b + (step * delta.pool.tolist()[k - frozen] if k >= frozen else 0.0) for k, b in enumerate(begin)]

    def block(numbers: list[float], number: int) -> Tensor:
        drawn = []
        for k in range(delta.structure.numel):
            drawn.append(numbers[number * delta.structure.numel + k if delta.index is None else delta.index[number, k]])
        raw, first = {}, 0
        for name, shape in delta.structure.generators().items():
            raw[name] = torch.tensor(drawn[first : first + math.prod(shape)], dtype=torch.float64).reshape(shape)
            first += math.prod(shape)
        return oracle_dense(delta.structure, **delta.structure.from_raw(**raw))

    dense = torch.zeros(OUT, IN, dtype=torch.float64)
    rows, cols = delta.structure.rows, delta.structure.cols
    for p in range(-(-OUT // rows)):
        for q in range(-(-IN // cols)):
            number = p * -(-IN // cols) + q
            W = block(now, number)
            if start is True:
                W = W - block(begin, number)
            for i in range(rows):
                for j in range(cols):
                    if p * rows + i < OUT and q * cols + j < IN:
                        dense[p * rows + i, q * cols + j] = scale * W[i, j]
    return dense


# What ΔW is


@every_family
@every_source
@every_start
def test_dense_by_hand(family: str, source: str, start: Any) -> None:
    delta = trained(make(family, source, init_weights=start, dtype=torch.float64, scale=1.7))
    expected = by_hand(delta, start, scale=1.7)
    assert normalised_error(delta.dense().detach(), expected) < 1e-12
    assert expected.any()


@every_family
@every_source
@pytest.mark.parametrize("start", [True, False])
def test_forward_is_the_product_with_dense(family: str, source: str, start: bool) -> None:
    """Every algorithm, result and gradients, with leading dimensions of any number, in blocks and outside of them."""
    delta = trained(make(family, source, init_weights=start, dtype=torch.float64))
    for shape in ((5, IN), (IN,), (2, 3, IN), (0, IN)):
        x = sample_inputs(*shape).requires_grad_()
        expected = x @ delta.dense().T
        expected_gradients = torch.autograd.grad(expected.square().sum(), (x, delta.pool))
        for other in variants(delta):
            y = other(x)
            gradients = torch.autograd.grad(y.square().sum(), (x, other.pool))
            for actual, wanted in zip((y, *gradients), (expected, *expected_gradients), strict=True):
                assert normalised_error(actual.detach(), wanted.detach()) < 1e-12, other.algorithm


@every_family
@every_source
def test_scale(family: str, source: str) -> None:
    unit = trained(make(family, source, dtype=torch.float64))
    half = trained(make(family, source, dtype=torch.float64, scale=-0.5))
    assert torch.equal(half.dense(), -0.5 * unit.dense())
    mean = trained(make(family, source, dtype=torch.float64, scale="1/in_features"))
    assert mean.scale == 1 / IN
    assert normalised_error(mean.dense().detach(), unit.dense().detach() / IN) < 1e-15
    for other in variants(mean):
        assert normalised_error(other(sample_inputs(3, IN)).detach(), unit(sample_inputs(3, IN)).detach() / IN) < 1e-12


@pytest.mark.parametrize(("rows", "size"), [(12, 4), (12, 3), (7, 7), (10, 5)])
def test_a_circulant_is_a_pooled_grid_of_toeplitz_blocks(rows: int, size: int) -> None:
    """TR2024-157, Figure 2: block (p, q) reads c[((p − q)·b + d) mod n] on its diagonal d = −(b − 1) … b − 1."""
    splits = rows // size
    delta = StructuredDelta(rows, rows, structure="toeplitz", num_splits=splits, pool_size=rows, dtype=torch.float64)
    index = [
        [((p - q) * size + d) % rows for d in range(-(size - 1), size)] for p in range(splits) for q in range(splits)
    ]
    assert delta.index is not None
    assert delta.index.shape == (len(index), 2 * size - 1)
    delta.index = torch.tensor(index)
    c = trained(delta).pool.detach()
    circulant = structures.get("circulant")(rows, rows).dense(c=c)
    assert torch.equal(delta.dense().detach(), circulant)
    for other in variants(delta):
        x = sample_inputs(3, rows)
        assert normalised_error(other(x).detach(), x @ circulant.T) < 1e-12


@pytest.mark.parametrize(
    ("family", "source"), [("circulant", "own"), ("cauchy_like", "pooled"), ("low_rank", "pooled")]
)
def test_whole_module_by_differences(family: str, source: str) -> None:
    delta = make(family, source, dtype=torch.float64)
    numbers = trained(delta).pool.detach().clone().requires_grad_()
    x = sample_inputs(2, IN).requires_grad_()
    for other in variants(delta):

        def run(numbers: Tensor, x: Tensor, other: StructuredDelta = other) -> Any:
            return functional_call(other, {"pool": numbers}, (x,))

        torch.autograd.gradcheck(run, (numbers, x))
        torch.autograd.gradgradcheck(run, (numbers, x))


# How it starts


@every_family
@every_source
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_op_at_the_start_with_a_gradient(family: str, source: str, dtype: torch.dtype) -> None:
    """ΔW is zero to the last bit, and the first step moves it, along the gradient, downhill."""
    delta = make(family, source, dtype=dtype)
    assert delta.pool.dtype == dtype
    assert not delta.pool.any()
    x = sample_inputs(6, IN, dtype=dtype)
    target = sample_inputs(6, OUT, dtype=dtype, seed=2)
    for other in variants(delta):
        assert torch.count_nonzero(other.dense()) == 0
        y = other(x)
        assert torch.count_nonzero(y) == 0
        loss = (y - target).float().square().sum()
        loss.backward()
        gradient = other.pool.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.norm() > 1e-3
        with torch.no_grad():
            step = 1e-2 / other.structure.raw_step  # the same for the raw numbers of every family
            other.pool.sub_((step / gradient.float().norm() * gradient).to(dtype))
        assert (other(x) - target).float().square().sum() < loss


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
@pytest.mark.parametrize("start", [False, "xavier_uniform", "kaiming_uniform"])
def test_random_starts(family: str, source: str, start: Any) -> None:
    """The papers' form: nothing is subtracted, raw numbers are uniform within the documented bound."""
    delta = make(family, source, init_weights=start)
    bound = math.sqrt(1 / IN) if start == "kaiming_uniform" else math.sqrt(6 / (IN + OUT))
    assert not delta.centred
    assert not delta.pool.any()
    assert torch.count_nonzero(delta.dense()) > OUT * IN / 2
    numbers = delta.numbers()
    assert 0.5 * bound < numbers.abs().max() < bound
    assert numbers.min() < 0 < numbers.max()


@every_family
def test_what_is_centred(family: str) -> None:
    """A second term is there only where S(θ⁰) is not zero by itself."""
    ranked = issubclass(structures.get(family), RankedStructure)
    assert make(family).centred == (family not in LINEAR and not ranked)
    assert make(family, "pooled").centred == (family not in LINEAR)
    assert (make(family).start is None) == (family in LINEAR)


@pytest.mark.parametrize("family", ["low_rank", "toeplitz_like", "hankel_like", "vandermonde_like", "cauchy_like"])
def test_own_start_of_ranked_families(family: str) -> None:
    """G starts at zero, everything else uniform on (−1, 1), in every block."""
    delta = make(family)
    assert delta.start is not None
    per_block = delta.start.view(delta.grid.num_blocks, -1)
    first = 0
    for name, shape in delta.structure.generators().items():
        part = per_block[:, first : first + math.prod(shape)]
        assert (part == 0).all() if name == "G" else (part != 0).all()
        first += math.prod(shape)


@every_family
def test_small_updates_survive_bf16_inputs(family: str) -> None:
    """S(θ) − S(θ⁰) is taken before rounding to x's dtype: an update of 1e-4 has its own relative accuracy."""
    delta = trained(make(family, "pooled", dtype=torch.float32), size=1e-4)
    x = sample_inputs(20, IN, dtype=torch.bfloat16)
    expected = x.double() @ by_hand(delta, True).T
    for other in variants(delta):
        y = other(x)
        assert y.dtype == torch.bfloat16
        assert normalised_error(y.detach(), expected) < 0.02, other.algorithm


# Which numbers are trained


@every_family
@every_source
def test_counts(family: str, source: str) -> None:
    delta = make(family, source)
    demand = delta.grid.num_blocks * delta.structure.numel
    size = SOURCES[source].get("pool_size", demand)
    assert delta.pool_size == size
    assert delta.num_trainable == size - math.ceil(SOURCES[source].get("fixed_ratio", 0) * size)
    assert [name for name, _ in delta.named_parameters()] == ["pool"]
    assert delta.num_trainable == sum(p.numel() for p in delta.parameters() if p.requires_grad)


@example(percent=7, size=100)
@example(percent=55, size=100)
@given(percent=st.integers(0, 99), size=st.integers(1, 500))
def test_frozen_share_is_rounded_up_exactly(percent: int, size: int) -> None:
    """⌈ρ P⌉ for the ρ that is written, not for its binary neighbour: 0.07 of 100 is 7."""
    frozen = -(-percent * size // 100)
    if frozen < size:
        delta = StructuredDelta(4, 4, structure="toeplitz", num_splits=2, pool_size=size, fixed_ratio=percent / 100)
        assert delta.num_fixed == frozen
        assert delta.num_trainable == size - frozen


@pytest.mark.parametrize(
    ("kwargs", "count"),
    [
        # HyDRA, TR2024-157: 24 matrices of a 768-wide model, k = 4
        ({"structure": "toeplitz", "num_splits": 4, "pool_size": 384}, 9_216),
        ({"structure": "vandermonde", "num_splits": 4, "pool_size": 384}, 9_216),
        ({"structure": "low_rank", "num_splits": 1, "pool_size": 384}, 9_216),
        ({"structure": "circulant", "num_splits": 4, "pool_size": 384, "fixed_ratio": 0.5}, 4_608),
        # C3A, arXiv 2407.19342, Table 2: one block, and b = 6 blocks per axis, on RoBERTa-base's queries and values
        ({"structure": "circulant", "block_size": 768}, 18_432),
        ({"structure": "circulant", "block_size": 128}, 110_592),
    ],
)
def test_counts_of_the_papers(kwargs: dict[str, Any], count: int) -> None:
    assert sum(StructuredDelta(768, 768, seed=layer, **kwargs).num_trainable for layer in range(24)) == count


@pytest.mark.parametrize(
    ("family", "drawn"), [("circulant", 192), ("vandermonde", 192), ("toeplitz", 383), ("hankel", 383)]
)
def test_numbers_that_one_block_draws(family: str, drawn: int) -> None:
    """TR2024-157 counts 384 for a Toeplitz or Hankel block of 192×192, which has 383 diagonals."""
    delta = StructuredDelta(768, 768, structure=family, num_splits=4, pool_size=384)
    assert delta.structure.numel == drawn
    assert delta.index is not None
    assert delta.index.shape == (16, drawn)


@every_family
@pytest.mark.parametrize("source", ["own, partly frozen", "pooled, partly frozen"])
def test_frozen_numbers_stay(family: str, source: str) -> None:
    """They have no place in `pool`, do not move when all that is trainable does, and matter for the random start."""
    delta = make(family, source, init_weights=False)
    frozen = delta.num_fixed
    assert frozen > 0
    before = delta.numbers()[:frozen].clone()
    assert before.all()
    trained(delta)
    assert torch.equal(delta.numbers()[:frozen], before)
    assert (delta.numbers()[frozen:] != make(family, source, init_weights=False).numbers()[frozen:]).all()
    other = make(family, source, init_weights=False, seed=6)
    trained(other)
    assert not torch.equal(other.numbers()[:frozen], before)


@every_family
def test_seeds(family: str) -> None:
    """The seed and the stream each change map and start; the global random state does not."""
    reference = make(family, "pooled, partly frozen", init_weights=False)
    torch.manual_seed(1234)
    torch.randn(3)
    same = make(family, "pooled, partly frozen", init_weights=False)
    assert torch.equal(same.dense(), reference.dense())
    for changes in ({"seed": 6}, {"seed": -5}, {"stream": 1}, {"seed": 2**63 - 1}, {"seed": -(2**63)}):
        other = make(family, "pooled, partly frozen", init_weights=False, **changes)
        assert reference.index is not None
        assert other.index is not None
        assert not torch.equal(other.index, reference.index)
        assert not torch.equal(other.dense(), reference.dense())


# Dtypes and devices


@every_family
@every_source
@pytest.mark.parametrize("x_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_dtypes(family: str, source: str, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    """The output has x's dtype; blocks are built in fp32 from bf16 numbers; gradients have the parameters' dtype."""
    delta = trained(make(family, source, dtype=dtype))
    assert delta.dense().dtype == torch.float32
    x = sample_inputs(6, IN, dtype=x_dtype)
    expected = x.double() @ by_hand(delta, True).T
    for other in variants(delta):
        y = other(x)
        assert y.dtype == x_dtype
        assert normalised_error(y.detach(), expected) < 3 * max(torch.finfo(x_dtype).eps, 3e-6), other.algorithm
        y.sum().backward()
        assert other.pool.grad is not None
        assert other.pool.grad.dtype == dtype


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
@pytest.mark.parametrize("size", [0.3, 1e-3])
def test_autocast(family: str, source: str, size: float) -> None:
    """Under autocast ΔW is what it is without; products have bf16's relative accuracy, for small updates too."""
    delta = trained(make(family, source), size=size)
    dense = delta.dense().detach()
    x = sample_inputs(20, IN, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(delta.dense(), dense)
        for other in variants(delta):
            y = other(x)
            assert normalised_error(y.detach(), x @ dense.T) < 0.02, other.algorithm
            y.float().square().sum().backward()
            assert other.pool.grad is not None
            assert other.pool.grad.isfinite().all()


@every_family
def test_casting_there_and_back(family: str) -> None:
    """Casts move the trainable numbers alone: start, index and seed are integers."""
    delta = make(family, "pooled, partly frozen", init_weights=False)
    reference = make(family, "pooled, partly frozen", init_weights=False)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        delta.to(dtype)
        assert delta.pool.dtype == dtype
        for name, buffer in delta.named_buffers():
            assert not buffer.is_floating_point()
            assert torch.equal(buffer, reference.get_buffer(name))
    assert torch.equal(delta.dense(), reference.dense())


@every_family
@every_source
def test_deepcopy(family: str, source: str) -> None:
    """Equal, and independent afterwards."""
    delta = trained(make(family, source))
    other = copy.deepcopy(delta)
    assert torch.equal(other.dense(), delta.dense())
    with torch.no_grad():
        other.pool.add_(1)
    assert not torch.equal(other.dense(), delta.dense())


# To disk and back


def _stored(delta: StructuredDelta, path: Path) -> dict[str, Tensor]:
    save_file(delta.state_dict(), path)
    return load_file(path)


@every_family
@every_source
@every_start
def test_save_and_load(family: str, source: str, start: Any, tmp_path: Path) -> None:
    """Bit-identical, from a file that holds the trainable numbers and an identity, in another stream too."""
    delta = trained(make(family, source, init_weights=start, stream=3))
    state = _stored(delta, tmp_path / "delta.safetensors")
    assert set(state) == {"pool", "_extra_state"}
    assert state["pool"].numel() == delta.num_trainable
    for fresh in (make(family, source, init_weights=start, stream=stream) for stream in (3, 4)):
        fresh.load_state_dict(state)
        assert torch.equal(fresh.dense(), delta.dense())
        x = sample_inputs(3, IN, dtype=torch.float32)
        assert torch.equal(fresh(x), delta(x))


@every_family
@every_source
def test_load_into_a_meta_module(family: str, source: str, tmp_path: Path) -> None:
    delta = trained(make(family, source, stream=3))
    state = _stored(delta, tmp_path / "delta.safetensors")
    with torch.device("meta"):
        inside = make(family, source)
    for empty in (make(family, source, device="meta"), inside):
        assert all(t.is_meta for t in (*empty.parameters(), *empty.buffers()))
        empty.load_state_dict(state, assign=True)
        assert not any(t.is_meta for t in (*empty.parameters(), *empty.buffers()))
        assert torch.equal(empty.dense(), delta.dense())
        assert isinstance(empty.pool, nn.Parameter)


@every_family
def test_index_map_and_start_go_where_the_numbers_go(family: str) -> None:
    """With the module, and with a parameter that moves by itself; they are made anew where nothing is left of them."""
    delta, reference = make(family, "pooled"), make(family, "pooled")
    assert delta.index is not None
    delta.to("meta")
    assert delta.index.is_meta
    assert delta.start is None or delta.start.is_meta
    delta.to_empty(device="cpu")
    assert torch.equal(delta.index, reference.index)
    delta.to("meta")
    delta.pool = nn.Parameter(torch.zeros_like(reference.pool))
    assert torch.equal(delta.numbers(), reference.numbers())
    assert torch.equal(delta.dealt(), reference.dealt())
    assert [name for name, _ in delta.named_buffers()] == []


@every_family
def test_another_seed_is_refused(family: str, tmp_path: Path) -> None:
    """And nothing of the checkpoint is taken over."""
    delta = trained(make(family, "pooled"))
    state = _stored(delta, tmp_path / "delta.safetensors")
    other = make(family, "pooled", seed=6)
    with pytest.raises(RuntimeError, match="seed: the checkpoint was trained with seed=5, .* seed=6.*configure seed=5"):
        other.load_state_dict(state)
    assert not other.pool.any()
    assert torch.count_nonzero(other.dense()) == 0


def test_a_checkpoint_of_another_size_is_refused() -> None:
    state = make("toeplitz", "pooled").state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for pool"):
        make("toeplitz", "pooled", pool_size=12).load_state_dict(state)


def test_a_module_inside_a_model(tmp_path: Path) -> None:
    """Prefixes are respected, and each layer keeps its own stream."""

    def model() -> nn.Sequential:
        return nn.Sequential(*(make("cauchy", "pooled", stream=k) for k in range(3)))

    full = model()
    for k, layer in enumerate(full):
        assert isinstance(layer, StructuredDelta)
        trained(layer, seed=k)
    path = tmp_path / "model.safetensors"
    save_file(full.state_dict(), path)
    fresh = model()
    fresh.load_state_dict(load_file(path))
    for a, b in zip(full, fresh, strict=True):
        assert isinstance(a, StructuredDelta)
        assert isinstance(b, StructuredDelta)
        assert torch.equal(a.dense(), b.dense())


# Arguments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"structure": "toeplitzz"}, "structure='toeplitzz' is unknown: did you mean 'toeplitz'"),
        ({"block_size": 4}, "block_size=4 and num_splits=3: give exactly one"),
        ({"num_splits": None}, "block_size=None and num_splits=None: give exactly one"),
        ({"num_splits": 8}, "num_splits=8 cuts a weight of 10×7 finer than its entries: choose at most 7"),
        ({"num_splits": 0}, "num_splits=0 must be an integer of at least 1"),
        ({"num_splits": None, "block_size": 11}, "block_size=11 is larger than a weight of 10×7: choose at most 10"),
        ({"num_splits": None, "block_size": -1}, "block_size=-1 must be an integer of at least 1"),
        ({"rank": 2}, "rank=2 does not go with structure='toeplitz'.*low_rank, toeplitz_like"),
        ({"structure": "low_rank", "rank": 0}, "rank=0 must be an integer of at least 1"),
        ({"structure": "low_rank", "rank": 1.5}, "rank=1.5 must be an integer of at least 1"),
        ({"pool_size": 0}, "pool_size=0 must be an integer of at least 1, or None"),
        ({"pool_size": -4}, "pool_size=-4 must be an integer of at least 1, or None"),
        ({"pool_size": 8.0}, "pool_size=8.0 must be an integer of at least 1, or None"),
        ({"pool_size": True}, "pool_size=True must be an integer of at least 1, or None"),
        ({"fixed_ratio": 1.0}, r"fixed_ratio=1.0 must be a number in \[0, 1\)"),
        ({"fixed_ratio": -0.1}, r"fixed_ratio=-0.1 must be a number in \[0, 1\)"),
        ({"fixed_ratio": math.nan}, r"fixed_ratio=nan must be a number in \[0, 1\)"),
        ({"fixed_ratio": "0.5"}, r"fixed_ratio='0.5' must be a number in \[0, 1\)"),
        ({"fixed_ratio": 0.9, "pool_size": 3}, "fixed_ratio=0.9 freezes all 3 numbers.*lower it or raise pool_size"),
        ({"seed": 1.5, "pool_size": 3}, "seed=1.5 must be an integer"),
        ({"seed": 2**63, "pool_size": 3}, "seed=9223372036854775808 must be an integer"),
        ({"seed": None, "pool_size": 3}, "seed=None must be an integer"),
        ({"seed": None}, "seed=None must be an integer"),
        ({"scale": 0}, "scale=0 must be a finite number other than 0, or '1/in_features'"),
        ({"scale": math.inf}, "scale=inf must be a finite number"),
        ({"scale": 1e308}, "scale=1e.308 must be a finite number of at most 1e.18 in size: fp32 overflows beyond"),
        ({"scale": -1e19}, "scale=-1e.19 must be a finite number of at most 1e.18"),
        ({"scale": 1e-40}, "scale=1e-40 must be at least 1e-18 in size: fp32 would leave nothing of the update"),
        ({"scale": math.nan}, "scale=nan must be a finite number"),
        ({"scale": "1/out_features"}, "scale='1/out_features' must be a finite number"),
        ({"init_weights": "zeros"}, "init_weights='zeros' must be True, False, 'xavier_uniform' or 'kaiming_uniform'"),
        ({"init_weights": None}, "init_weights=None must be True"),
        ({"algorithm": "factored"}, "algorithm='factored'.*toeplitz blocks: choose .*'auto'.*dense.*fft"),
        ({"algorithm": "fast"}, "algorithm='fast'"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"structure": "toeplitz", "num_splits": 3}
    with pytest.raises(ValueError, match=message):
        StructuredDelta(OUT, IN, **defaults | kwargs)


@every_family
@every_source
def test_repr_says_what_it_is(family: str, source: str) -> None:
    delta = make(family, source)
    text = repr(delta)
    block, grid = delta.structure, delta.grid
    assert f"10×7 = {grid.block_rows}×{grid.block_cols} blocks of {block.rows}×{block.cols} {family}" in text
    assert f"{delta.num_trainable} trainable" in text
    assert (f"{delta.num_fixed} frozen" in text) == ("frozen" in source)
    assert "algorithm=auto" in text


# Training

LEARNING_RATES = dict.fromkeys(FAMILIES, 0.004) | dict.fromkeys(LINEAR, 0.002) | {"vandermonde": 0.01}
"""HyDRA's, TR2024-157, Appendix B; those of low-rank for the families that it does not list."""


@every_family
@pytest.mark.parametrize("source", ["own", "pooled"])
def test_training_at_the_papers_learning_rates(family: str, source: str) -> None:
    """AdamW finds its way to a target that the family can express: downhill all along, and well below the start."""
    kwargs: dict[str, Any] = {"num_splits": 2} | ({"pool_size": 60} if source == "pooled" else {})
    target, delta = (StructuredDelta(16, 12, structure=family, **kwargs) for _ in range(2))
    trained(target, size=0.3)
    x, goal = sample_inputs(64, 12, dtype=torch.float32), target.dense().detach()
    optimizer = torch.optim.AdamW([delta.pool], lr=LEARNING_RATES[family], weight_decay=0.0)
    losses = []
    for _ in range(200):
        loss = (delta(x) - x @ goal.T).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tens = [sum(losses[k : k + 10]) for k in range(0, 200, 10)]
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) <= losses[0] * 1.01
    assert all(later < 1.05 * earlier for earlier, later in pairwise(tens))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("seed"), "seed: nothing where int64"),
        (lambda state: state.update(seed=torch.tensor([], dtype=torch.int64)), r"seed: torch\.int64 of shape \(0,\)"),
        (lambda state: state.update(seed=torch.tensor(3)), r"seed: torch\.int64 of shape \(\)"),
        (lambda state: state.update(seed=torch.zeros(2)), r"seed: torch\.float32 of shape \(2,\)"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_numbers_without_their_seed_are_refused(change, said, strict) -> None:
    delta = StructuredDelta(6, 6, structure="toeplitz", num_splits=2, pool_size=5)
    state: dict[str, Any] = {"pool": torch.ones(5), "seed": torch.tensor([0, 0])}
    change(state)
    with pytest.raises(RuntimeError, match=said):
        delta.load_state_dict(state, strict=strict)
    assert not delta.pool.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"out_features": 0, "in_features": 4}, "out_features=0 must be an integer of at least 1"),
        ({"out_features": 4, "in_features": -3}, "in_features=-3 must be"),
        ({"out_features": 4, "in_features": 4, "stream": "x"}, "stream='x' must be an integer"),
    ],
)
def test_impossible_sizes_and_streams(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        StructuredDelta(**arguments, block_size=2)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"structure": "low_rank", "num_splits": 2, "rank": 2, "pool_size": 30, "fixed_ratio": 0.5, "seed": 3}
    expected = StructuredDelta(10, 14, **options, stream=7, scale=0.5, init_weights=False)
    given = {k: np.float32(v) if isinstance(v, float) else np.int64(v) for k, v in options.items() if k != "structure"}
    delta = StructuredDelta(
        np.int32(10),
        torch.tensor(14),
        structure="low_rank",
        **given,
        stream=np.uint8(7),
        scale=np.float32(0.5),
        init_weights=np.bool_(False),
    )
    assert torch.equal(delta.dense(), expected.dense())
    assert delta.identity == expected.identity
    assert torch.equal(delta.get_extra_state(), expected.get_extra_state())
    with pytest.raises(ValueError, match=r"rank=2\.0 must be an integer"):
        StructuredDelta(10, 14, structure="low_rank", num_splits=2, rank=np.float64(2))


@pytest.mark.parametrize("family", ["circulant", "toeplitz", "hankel", "toeplitz_like", "hankel_like"])
@pytest.mark.parametrize("pooled", [False, True])
def test_inference_follows_the_numbers(family: str, pooled: bool) -> None:
    """What is kept between calls without gradients is made anew whenever the numbers, the seed or the dtype change."""
    options = {
        "structure": family,
        "num_splits": 2,
        "algorithm": "fft",
        "pool_size": 13 if pooled else None,
        "scale": 0.5,
    }
    delta = StructuredDelta(10, 14, **options)
    other = StructuredDelta(10, 14, **options, stream=7)
    x = torch.randn(2, 3, 14, generator=torch.Generator().manual_seed(0))

    in_fp64 = 1e-13 if delta.structure.is_linear else 1e-6  # whose generators are multiplied in fp32
    bounds = {torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: in_fp64}

    def check(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y, again = delta(x), delta(x)
        assert torch.equal(y, again)
        expected = x.double() @ delta.dense().detach().double().T
        assert normalised_error(y, expected) < bounds[x.dtype]
        return y

    delta.pool.data.normal_(generator=torch.Generator().manual_seed(1))
    first = check(x)
    delta.pool.data.mul_(3)  # behind autograd's back
    assert not torch.equal(check(x), first)
    with torch.no_grad():
        delta.pool[0] += 1
    check(x)
    delta.pool.data = -delta.pool.data
    check(x)
    delta.load_state_dict(other.state_dict() | {"pool": delta.pool.detach().clone()})  # another start and index map
    check(x)
    check(x.bfloat16())
    check(x.double())
    delta.double()
    check(x.double())
