"""Several ΔW that read one pool."""

from __future__ import annotations

import copy
import gc
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from structune.delta import StructuredDelta
from structune.shared_pool import SharedPool
from structune.testing import moved, sample_inputs

from .conftest import FAMILIES, by_hand, every_family

SIZES = ((10, 7), (7, 10), (6, 6))
P = 23


class Chain(nn.Module):
    """Three layers of different sizes, one after the other and beside each other."""

    def __init__(self, families: tuple[str, str, str], **options: Any) -> None:
        super().__init__()
        shared = SharedPool("model", group=4)
        options = {"num_splits": 2, "pool_size": P, "seed": 5, "pool_map": "index"} | options
        self.layers = nn.ModuleList(
            StructuredDelta(*sizes, structure=family, stream=k, shared_pool=shared, **options)
            for k, (sizes, family) in enumerate(zip(SIZES, families, strict=True))
        )

    @property
    def deltas(self) -> list[StructuredDelta]:
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(…, 7) to (…, 13)."""
        first, second, third = self.layers
        y = second(torch.tanh(first(x) + 0.5))
        return torch.cat((y, third(x[..., :6])), dim=-1)


def chain(family: str = "toeplitz", **options: Any) -> Chain:
    made = Chain((family,) * 3, **options)
    moved(made.deltas[0])
    return made


def tied(model: Chain) -> bool:
    """One parameter, in every layer, and it alone."""
    first = model.deltas[0].pool
    return all(delta.pool is first for delta in model.deltas) and [*model.parameters()] == [first]


def test_one_parameter() -> None:
    model = chain()
    assert tied(model)
    assert sum(p.numel() for p in model.parameters()) == P
    assert [name for name, _ in model.named_parameters()] == ["layers.0.pool"]
    assert "23 trainable in a pool shared by 3 matrices" in repr(model.deltas[1])


def test_matrices_read_on_where_others_end() -> None:
    """The pool is used evenly over all of them; one as large as their demand shares nothing."""
    model = chain()
    read = torch.cat([delta.index.flatten() for delta in model.deltas])
    uses = Counter(read.tolist())
    assert set(uses) == set(range(P))
    assert max(uses.values()) - min(uses.values()) <= 1
    for delta, other in zip(model.deltas, model.deltas[1:], strict=False):
        assert not torch.equal(delta.index[0, :4], other.index[0, :4])
    all_apart = chain(pool_size=len(read))
    assert sorted(torch.cat([delta.index.flatten() for delta in all_apart.deltas]).tolist()) == list(range(len(read)))


@every_family
def test_each_is_what_it_would_be_alone(family: str) -> None:
    """With the same numbers, and θ⁰ the same in all of them."""
    model = chain(family, fixed_ratio=0.3)
    torch.testing.assert_close(model.deltas[0].dense(), by_hand(model.deltas[0], True).float(), atol=2e-5, rtol=1e-4)
    for delta in model.deltas:
        assert delta.start is None or torch.equal(delta.start, model.deltas[0].start)
        alone = copy.deepcopy(delta)
        assert alone.pool is not delta.pool
        assert torch.equal(alone.dense(), delta.dense())
        assert alone.dense().any()
    assert len({tuple(d.dense().flatten()[:5].tolist()) for d in model.deltas}) == 3


def test_each_starts_as_narrow_as_lora_would_there() -> None:
    """The common θ⁰, times a bound that follows from the columns of a matrix's own blocks."""
    model = Chain(("low_rank",) * 3, init_weights="lora")
    for delta, cols in zip(model.deltas, (4, 5, 3), strict=True):
        assert torch.equal(delta.start, model.deltas[0].start)
        torch.testing.assert_close(delta.numbers() * cols**0.5, delta.start * 2.0**-24, rtol=1e-6, atol=0)
        assert not delta.dense().any()


@every_family
@pytest.mark.parametrize("fixed_ratio", [0.0, 0.4])
def test_starts_at_zero_with_a_gradient(family: str, fixed_ratio: float) -> None:
    model = Chain((family,) * 3, fixed_ratio=fixed_ratio)
    assert not any(delta.dense().any() for delta in model.deltas)
    model(sample_inputs(5, 7, dtype=torch.float32)).square().sum().backward()
    (model(sample_inputs(5, 7, dtype=torch.float32)) - 1).square().sum().backward()
    assert model.deltas[0].pool.grad.any()


@every_family
def test_gradients_across_layers(family: str) -> None:
    """Of the numbers that all layers share, and of x, in fp64."""
    model = Chain((family,) * 3, fixed_ratio=0.2, dtype=torch.float64)
    pool = 0.3 * sample_inputs(model.deltas[0].num_trainable, seed=3)

    def function(numbers: Tensor, x: Tensor) -> Tensor:
        return functional_call(model, {"layers.0.pool": numbers}, (x,))

    x = sample_inputs(3, 7).requires_grad_()
    assert torch.autograd.gradcheck(function, (pool.clone().requires_grad_(), x))


def test_the_gradient_is_the_sum_over_layers() -> None:
    model = chain()
    apart = [copy.deepcopy(delta) for delta in model.deltas]
    for delta in (*model.deltas, *apart):
        x = sample_inputs(4, delta.grid.in_features, dtype=torch.float32)
        delta(x).square().sum().backward()
    total = torch.stack([delta.pool.grad for delta in apart]).sum(0)
    torch.testing.assert_close(model.deltas[0].pool.grad, total)


def test_families_of_different_steps_read_the_same_numbers() -> None:
    """θ = θ⁰ + step · δ: the pool holds δ, and each family has its own step."""
    model = Chain(("vandermonde", "cauchy", "toeplitz"))
    moved(model.deltas[0])
    steps = [
        (d.numbers() - (0 if d.start is None else d.start * 2.0**-24)) / d.structure.raw_step for d in model.deltas
    ]
    for step in steps:
        torch.testing.assert_close(step, model.deltas[0].pool.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"pool_size": 24},
            r"pool_size is 24 here and 23 in other matrices that share the pool \(pool_scope='model'\)",
        ),
        ({"fixed_ratio": 0.5}, r"the number of frozen ones \(fixed_ratio\) is 12 here and 0"),
        ({"seed": 6}, "seed is 6 here and 5"),
        ({"pool_size": None}, "pool_scope='model' shares a pool among matrices: give its pool_size"),
    ],
)
def test_what_makes_another_pool(changes: dict[str, Any], said: str) -> None:
    shared = SharedPool("model")
    options: dict[str, Any] = {"structure": "toeplitz", "num_splits": 2, "pool_size": P, "seed": 5, "pool_map": "index"}
    first = StructuredDelta(6, 6, shared_pool=shared, **options)
    with pytest.raises(ValueError, match=said):
        StructuredDelta(6, 6, shared_pool=shared, **options | changes)
    assert len(shared) == 1
    assert first.shared_pool is shared


def test_a_pool_has_its_limit() -> None:
    shared = SharedPool("model", most=22)
    with pytest.raises(ValueError, match="pool_size=23 is more than the 22"):
        StructuredDelta(6, 6, num_splits=2, structure="toeplitz", pool_size=23, shared_pool=shared)


CHANGES = {
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "meta and back": lambda m: m.to("meta").to_empty(device="cpu"),
    "set": lambda m: setattr(m.deltas[1], "pool", nn.Parameter(torch.ones(P))),
    "copied": copy.deepcopy,
    "pickled": lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301
    "copied twice": lambda m: copy.deepcopy(copy.deepcopy(m)),
    "loaded": lambda m: m.load_state_dict(chain().state_dict()),
    "assigned": lambda m: m.load_state_dict(chain().state_dict(), assign=True),
    "frozen": lambda m: m.requires_grad_(False),
    "one on its way": lambda m: m.deltas[2].to_empty(device="meta").to_empty(device="cpu"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hosts_keep_it_one(change: str) -> None:
    model = chain()
    changed = CHANGES[change](model)
    changed = changed if isinstance(changed, Chain) else model
    assert tied(changed)
    changed = changed.float().requires_grad_()
    with torch.no_grad():
        changed.deltas[1].pool.copy_(torch.linspace(0, 1, P))
    for delta in changed.deltas:
        assert torch.equal(delta.numbers(), changed.deltas[1].pool)
        assert delta.dense().any()


def test_copies_share_among_themselves() -> None:
    """And nothing with what they were copied from."""
    model = chain()
    copied = copy.deepcopy(model)
    before = [delta.dense().clone() for delta in model.deltas]
    with torch.no_grad():
        copied.deltas[2].pool.zero_()
    copied.deltas[1].pool = nn.Parameter(torch.ones(P))
    assert all(torch.equal(delta.dense(), was) for delta, was in zip(model.deltas, before, strict=True))
    assert len(model.deltas[0].shared_pool) == len(copied.deltas[0].shared_pool) == 3
    assert model.deltas[0].shared_pool is not copied.deltas[0].shared_pool


def test_members_come_and_go() -> None:
    model = chain()
    shared = model.deltas[0].shared_pool
    del model.layers[0]
    gc.collect()
    assert len(shared) == 2
    assert model.deltas[0].pool is model.deltas[1].pool


# ---- state dicts


def test_a_state_dict_needs_the_pool_once() -> None:
    """Wherever in it, as files that leave out shared tensors have it."""
    model = chain()
    for kept in range(3):
        state = model.state_dict()
        for k in range(3):
            if k != kept:
                del state[f"layers.{k}.pool"]
        for assign in (False, True):
            fresh = Chain(("toeplitz",) * 3)
            fresh.load_state_dict(state, strict=True, assign=assign)
            assert tied(fresh)
            for delta, other in zip(model.deltas, fresh.deltas, strict=True):
                assert torch.equal(delta.dense(), other.dense())


def test_a_state_dict_without_the_pool() -> None:
    state = {key: value for key, value in chain().state_dict().items() if not key.endswith("pool")}
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.0\.pool.*layers\.1\.pool.*layers\.2\.pool"):
        Chain(("toeplitz",) * 3).load_state_dict(state)


@pytest.mark.parametrize("assign", [False, True])
def test_pools_that_are_not_one(assign: bool) -> None:
    """As averages over models, or parallel training, could leave them; loading it again once it is mended works."""
    model, state = chain(), chain().state_dict()
    state["layers.2.pool"] = state["layers.2.pool"] + 1
    with pytest.raises(
        RuntimeError, match=r"layers\.2\.pool and layers\.0\.pool differ in the checkpoint, but are one"
    ):
        model.load_state_dict(state, assign=assign)
    model.load_state_dict(chain().state_dict(), assign=assign)
    assert tied(model)


def test_loading_one_after_the_other() -> None:
    """A part first, then the whole with other numbers: two loads, no contradiction."""
    model, other = chain(), chain()
    with torch.no_grad():
        other.deltas[0].pool.add_(1)
    model.deltas[1].load_state_dict(other.deltas[1].state_dict())
    assert torch.equal(model.deltas[0].pool, other.deltas[0].pool)
    model.load_state_dict(chain().state_dict())
    assert torch.equal(model.deltas[2].pool, chain().deltas[0].pool)


def test_order_does_not_matter() -> None:
    """Numbers mean the same in a model whose layers were made in another order."""
    model = chain()
    shared = SharedPool("model", group=9)
    options: dict[str, Any] = {"structure": "toeplitz", "num_splits": 2, "pool_size": P, "seed": 5, "pool_map": "index"}
    backwards = [StructuredDelta(*sizes, shared_pool=shared, **options) for sizes in reversed(SIZES)]
    other = chain()
    other.layers = nn.ModuleList(reversed(backwards))
    other.load_state_dict(model.state_dict())
    assert tied(other)
    for one, two in zip(model.deltas, other.deltas, strict=True):
        assert torch.equal(one.dense(), two.dense())


def test_other_scopes_are_refused() -> None:
    model = chain()
    own = StructuredDelta(10, 7, num_splits=2, structure="toeplitz", pool_size=P, pool_map="index", seed=5)
    with pytest.raises(RuntimeError, match="trained with pool_scope='model', this adapter is configured with"):
        own.load_state_dict(model.deltas[0].state_dict())
    with pytest.raises(RuntimeError, match="trained with pool_scope='matrix'"):
        model.deltas[0].load_state_dict(own.state_dict())
    before_0_2 = {"pool": own.pool, "seed": own.seed}
    with pytest.raises(RuntimeError, match="trained with pool_scope='matrix'"):
        model.deltas[0].load_state_dict(before_0_2)


def test_two_pools_in_the_place_of_one() -> None:
    """The numbers are equal by chance, such as zeros, but not what they mean."""
    state = chain().state_dict()
    other = StructuredDelta(
        6,
        6,
        num_splits=2,
        structure="toeplitz",
        pool_size=P,
        pool_map="index",
        seed=5,
        shared_pool=SharedPool("model", 77),
    )
    state["layers.2._extra_state"] = other.get_extra_state()
    with pytest.raises(RuntimeError, match=r"layers\.2\.pool: the checkpoint has other matrices share a pool than"):
        chain().load_state_dict(state)


def test_a_pool_is_on_one_device() -> None:
    """A layer on another device says so; that device need not be there for the check."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        elsewhere = torch.empty(3, 7, device="cuda")
    with pytest.raises(RuntimeError, match=r"pool_scope='model'\) is on cpu, and its input on cuda"):
        chain().deltas[0](elsewhere)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in ("circulant", "cauchy_like")])
def test_compiled(family: str) -> None:
    model = chain(family)
    x = sample_inputs(5, 7, dtype=torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    model(x).square().sum().backward()
    expected, model.deltas[0].pool.grad = model.deltas[0].pool.grad, None
    compiled(x).square().sum().backward()
    torch.testing.assert_close(model.deltas[2].pool.grad, expected)
