"""Unmerging gives the old weight back bit by bit, in every dtype, and what was merged, whatever was done since."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

import structune
from structune.peft import StructuneLayer
from structune.peft.undo import Undo, plus

LAYERS = {
    "linear": (lambda: nn.Linear(12, 8), "weight"),
    "conv1d": (lambda: Conv1D(8, 12), "weight"),
    "conv": (lambda: nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last), "weight"),
    "embedding": (lambda: nn.Embedding(9, 8), "weight"),
    "attention": (lambda: nn.MultiheadAttention(8, 2), "in_proj_weight"),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def adapted(make=LAYERS["linear"][0], dtype=torch.bfloat16, std=0.3) -> tuple[nn.Module, StructuneLayer]:
    torch.manual_seed(0)
    config = structune.c3a(block_size=4, target_modules=["0"])
    model = get_peft_model(nn.Sequential(make()).to(dtype), config)
    for layer in model.modules():
        if isinstance(layer, StructuneLayer):
            nn.init.normal_(layer.structune_delta["default"].pool, std=std)
    return model, model.base_model.model[0]


def bits(model: nn.Module) -> dict[str, bytes]:
    return {
        name: parameter.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, parameter in model.named_parameters()
        if "structune" not in name
    }


@pytest.mark.parametrize("std", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("make", "name"), LAYERS.values(), ids=LAYERS)
def test_merged_and_unmerged(make, name, dtype, std) -> None:
    """Three hundred times where that is quick."""
    model, layer = adapted(make, dtype, std)
    before = bits(model)
    weight = layer.get_base_layer().get_parameter(name)
    expected = weight.double() + layer.get_delta_weight("default").double()
    for _ in range(300 if make is LAYERS["linear"][0] and std == 0.3 else 2):
        model.merge_adapter()
        model.unmerge_adapter()
    assert bits(model) == before
    model.merge_adapter()
    torch.testing.assert_close(weight.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_the_sign_of_zero_and_values_that_are_not_finite_come_back() -> None:
    model, layer = adapted()
    with torch.no_grad():
        layer.base_layer.weight[:, :4] = torch.tensor([-0.0, float("inf"), float("nan"), 0.0])
    before = bits(model)
    model.merge_adapter()
    model.unmerge_adapter()
    assert bits(model) == before


def test_one_after_the_other_is_both_at_once() -> None:
    model, layer = adapted()
    model.add_adapter("second", structune.c3a(block_size=2, target_modules=["0"]))
    nn.init.normal_(layer.structune_delta["second"].pool)
    before = bits(model)
    model.merge_adapter(["default", "second"])
    together = bits(model)
    assert together != before
    model.unmerge_adapter()
    for name in ("default", "second"):
        model.merge_adapter([name])
    assert bits(model) == together
    model.unmerge_adapter()
    assert bits(model) == before


@pytest.mark.parametrize("change", ["numbers", "strength", "deleted", "moved"])
def test_whatever_was_done_to_the_adapter_since(change) -> None:
    model, layer = adapted()
    before = bits(model)
    model.merge_adapter()
    if change == "numbers":
        nn.init.normal_(layer.structune_delta["default"].pool)
    if change == "strength":
        layer.scaling = {"default": 7.0}
    if change == "deleted":
        model.add_adapter("second", structune.c3a(block_size=2, target_modules=["0"]))
        model.delete_adapter("default")
    if change == "moved":
        model = copy.deepcopy(model).to("cpu")
    model.unmerge_adapter()
    assert bits(model) == before


def test_a_weight_that_was_cast_since_is_unmerged_up_to_rounding() -> None:
    model, layer = adapted(dtype=torch.float32)
    weight = layer.base_layer.weight.detach().clone()
    model.merge_adapter()
    model.bfloat16()
    model.unmerge_adapter()
    assert layer.base_layer.weight.dtype == torch.bfloat16
    torch.testing.assert_close(layer.base_layer.weight.float(), weight, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_little_is_kept_where_the_update_is_small(dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(256, 256).to(dtype)
    small, large = (torch.randn(256, 256) * std for std in (1e-3, 1.0))
    merged = plus(weight, small)
    undo = Undo(weight, merged, small)
    assert not torch.equal(merged, weight)
    assert undo.places is not None
    assert 0 < undo.places.numel() < 0.02 * weight.numel()
    assert torch.equal(undo.original(merged, small), weight)
    undo = Undo(weight, plus(weight, large), large)
    assert torch.equal(undo.original(plus(weight, large), large), weight)


@pytest.mark.parametrize("layer", LAYERS)
def test_merging_for_good_keeps_nothing(layer) -> None:
    model, _ = adapted(LAYERS[layer][0], std=30.0)
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    model.merge_and_unload()
    assert layers
    assert all(layer.undo is None for layer in layers)
