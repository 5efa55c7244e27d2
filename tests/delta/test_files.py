"""To disk and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from structune.delta import StructuredDelta
from structune.testing import moved, sample_inputs

from .conftest import IN, every_family, every_source, every_start, make


def _stored(delta: StructuredDelta, path: Path) -> dict[str, Tensor]:
    save_file(delta.state_dict(), path)
    return load_file(path)


@every_family
@every_source
@every_start
def test_save_and_load(family: str, source: str, start: Any, tmp_path: Path) -> None:
    """Bit-identical, from a file that holds the trainable numbers and an identity, in another stream too."""
    delta = moved(make(family, source, init_weights=start, stream=3))
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
    delta = moved(make(family, source, stream=3))
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
    delta = moved(make(family, "pooled"))
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
        moved(layer, seed=k)
    path = tmp_path / "model.safetensors"
    save_file(full.state_dict(), path)
    fresh = model()
    fresh.load_state_dict(load_file(path))
    for a, b in zip(full, fresh, strict=True):
        assert isinstance(a, StructuredDelta)
        assert isinstance(b, StructuredDelta)
        assert torch.equal(a.dense(), b.dense())


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


def test_a_pool_of_another_rank_is_refused() -> None:
    """The numbers are as many; files of before say no rank and load as they did."""
    make_it = {"structure": "low_rank", "num_splits": 1, "pool_size": 20}
    two, four = (StructuredDelta(8, 8, **make_it, rank=rank) for rank in (2, 4))
    with torch.no_grad():
        two.pool.fill_(0.5)
    stored = two.state_dict()
    with pytest.raises(RuntimeError, match="other options of the family's own, such as a rank"):
        four.load_state_dict(stored)
    assert not four.pool.any()
    again = StructuredDelta(8, 8, **make_it, rank=2)
    again.load_state_dict(stored)
    assert torch.equal(again.dense(), two.dense())
    before = replace(two.identity, own_options=None).digits()
    assert len(before) == 27
    older = StructuredDelta(8, 8, **make_it, rank=2)
    older.load_state_dict(stored | {"_extra_state": before})
    assert torch.equal(older.dense(), two.dense())
