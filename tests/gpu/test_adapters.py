"""Adapters where they are used: start, training, merging, files, other devices, mixed batches, checkpointing."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

import structune
from structune.testing import DEVICE, normalised_error, sample_inputs

from .conftest import TOLERANCE, adapted, base, every_dtype, every_family, every_source, inputs, moved, pools


@every_family
@every_source
@every_dtype
def test_starts_as_the_base_and_trains(family: str, pool_size: int | None, dtype: torch.dtype) -> None:
    """Bit by bit what the base gives, then downhill, with everything where the model is."""
    model, x = adapted(family, pool_size, dtype), inputs(dtype=dtype)
    assert torch.equal(model(x), base(dtype)(x))
    target = sample_inputs(12, 30, seed=2)
    optimizer = torch.optim.AdamW(pools(model), lr=2e-3, weight_decay=0.0)
    losses = []
    for _ in range(10):
        loss = (model(x).double() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(pool.grad.isfinite().all() and pool.grad.any() for pool in pools(model))
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(pool.device.type == DEVICE.type for pool in pools(model))


@every_family
@every_source
@every_dtype
def test_merging_says_the_same(family: str, pool_size: int | None, dtype: torch.dtype) -> None:
    model, x = moved(adapted(family, pool_size, dtype)), inputs(dtype=dtype)
    before = model(x).detach()
    weights = [p.clone() for name, p in model.named_parameters() if "base_layer.weight" in name]
    assert normalised_error(before, base(dtype)(x)) > 0.05
    model.merge_adapter(safe_merge=True)
    assert normalised_error(model(x), before) < 2 * TOLERANCE[dtype]
    model.unmerge_adapter()
    assert normalised_error(model(x), before) < TOLERANCE[dtype]
    after = [p for name, p in model.named_parameters() if "base_layer.weight" in name]
    for was, now in zip(weights, after, strict=True):
        assert normalised_error(now.detach(), was) < TOLERANCE[dtype]


@every_family
@every_source
def test_files_mean_the_same_on_every_device(family: str, pool_size: int | None, tmp_path: Path) -> None:
    """Bit by bit the same numbers on the device where they were trained, and the same ΔW on a CPU up to rounding."""
    model = moved(adapted(family, pool_size))
    model.save_pretrained(tmp_path)
    here = PeftModel.from_pretrained(base(), tmp_path)
    there = PeftModel.from_pretrained(base().to("cpu"), tmp_path, torch_device="cpu")
    x = inputs()
    assert torch.equal(here(x), model(x))
    assert normalised_error(there(x.to("cpu")).to(DEVICE), model(x)) < TOLERANCE[torch.float32]
    assert normalised_error(there.to(DEVICE)(x), model(x)) < TOLERANCE[torch.float32]


@every_family
def test_mixed_batches(family: str) -> None:
    """Each sample has its adapter's result, in one call."""
    model = moved(adapted(family, 40))
    model.add_adapter("other", structune.c3a(block_size=10, target_modules=["lin0", "lin1"]))
    model.base_model.set_adapter(["default", "other"])
    moved(model).eval().set_adapter("default")
    x, names = inputs(3).unsqueeze(1), ["default", "__base__", "other"]
    mixed = model(x, adapter_names=names)
    alone = [model(x[:1]), base()(x[1:2])]
    model.set_adapter("other")
    assert normalised_error(mixed, torch.cat([*alone, model(x[2:])])) < TOLERANCE[torch.float32]


@every_family
@every_source
def test_checkpointing_gives_the_same_gradients(family: str, pool_size: int | None) -> None:
    found = []
    for checkpointed in (False, True):
        model, x = moved(adapted(family, pool_size)), inputs().requires_grad_()
        y = checkpoint(model, x, use_reentrant=False) if checkpointed else model(x)
        y.square().sum().backward()
        found.append([pool.grad for pool in pools(model)])
    for plain, again in zip(*found, strict=True):
        assert normalised_error(again, plain) < TOLERANCE[torch.float32]


@every_family
def test_embeddings(family: str) -> None:
    """Rows are looked up where the table is."""
    torch.manual_seed(0)
    table = nn.Sequential(nn.Embedding(21, 16)).to(DEVICE)
    config = structune.StructuneConfig(structure=family, num_splits=2, pool_size=30, target_modules=["0"])
    model = moved(get_peft_model(table, config).to(DEVICE))
    index = torch.tensor([[0, 20, 5], [7, 7, 20]], device=DEVICE)
    found = model(index)
    model.merge_adapter()
    assert normalised_error(found, model(index)) < TOLERANCE[torch.float32]
