"""The adapted layer: forward, several adapters, merging, disabling, deleting, precision."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

import structune
from structune import StructuneConfig
from structune.peft import StructuneConv1D, StructuneLayer, StructuneLinear

RANKED = {"low_rank", "toeplitz_like", "hankel_like", "vandermonde_like", "cauchy_like"}
GRIDS = {
    "own": {"block_size": 4},
    "pool": {"num_splits": 3, "pool_size": 11},
    "frozen": {"num_splits": 2, "pool_size": 11, "fixed_ratio": 0.4},
}


def config(structure: str, grid: str, **kwargs) -> StructuneConfig:
    rank = 2 if structure in RANKED else None
    return StructuneConfig(structure=structure, rank=rank, target_modules=["lin0", "lin1"], **GRIDS[grid], **kwargs)


def adapted_layers(model: nn.Module) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("structure", structune.structures.names())
def test_starts_as_a_no_op_that_can_learn(structure, grid, mlp) -> None:
    x = torch.randn(5, 10)
    model = get_peft_model(mlp(), config(structure, grid))
    assert torch.equal(model(x), mlp()(x))
    model(x).square().sum().backward()
    for layer in adapted_layers(model):
        assert layer.structune_delta["default"].pool.grad.abs().max() > 1e-6


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("structure", structune.structures.names())
def test_forward_is_base_plus_delta_and_merging_says_the_same(structure, grid, mlp, randomise) -> None:
    x = torch.randn(5, 10)
    base = mlp()
    model = randomise(get_peft_model(mlp(), config(structure, grid)))
    lin0, lin1 = adapted_layers(model)
    hidden = torch.tanh(x @ (base.lin0.weight + lin0.get_delta_weight("default")).T + base.lin0.bias)
    expected = hidden @ (base.lin1.weight + lin1.get_delta_weight("default")).T + base.lin1.bias
    before = model(x)
    assert (before - base(x)).abs().max() > 1e-2
    torch.testing.assert_close(before, expected, rtol=1e-4, atol=1e-5)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lin0.get_base_layer().weight, base.lin0.weight + lin0.get_delta_weight("default"))
    model.unmerge_adapter()
    torch.testing.assert_close(lin0.get_base_layer().weight, base.lin0.weight)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    merged = model.merge_and_unload(safe_merge=True)
    assert not adapted_layers(merged)
    torch.testing.assert_close(merged(x), before, rtol=1e-4, atol=1e-5)


def test_conv1d_has_its_weight_the_other_way_round(randomise) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(9, 5))
    reference = nn.functional.linear
    x = torch.randn(4, 3, 5)
    weight, bias = model[0].weight.clone(), model[0].bias.clone()
    adapted = randomise(get_peft_model(model, structune.c3a(block_size=4, target_modules=["0"])))
    (layer,) = adapted_layers(adapted)
    assert isinstance(layer, StructuneConv1D)
    assert layer.get_delta_weight("default").shape == weight.shape == (5, 9)
    delta = layer.structune_delta["default"].dense()
    expected = reference(x, weight.T + delta, bias)
    torch.testing.assert_close(adapted(x), expected, rtol=1e-4, atol=1e-5)
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(x), expected, rtol=1e-4, atol=1e-5)


def test_several_adapters_add_up_each_on_the_original_input(mlp, randomise) -> None:
    x = torch.randn(5, 10)
    base = mlp()
    model = get_peft_model(mlp(), config("circulant", "own"))
    model.add_adapter("second", config("toeplitz_like", "pool"))
    for name in ("default", "second"):
        model.set_adapter(name)
        randomise(model, seed=len(name))
    model.base_model.set_adapter(["default", "second"])
    lin0, lin1 = adapted_layers(model)
    deltas = [sum(layer.get_delta_weight(name) for name in ("default", "second")) for layer in (lin0, lin1)]
    hidden = torch.tanh(x @ (base.lin0.weight + deltas[0]).T + base.lin0.bias)
    expected = hidden @ (base.lin1.weight + deltas[1]).T + base.lin1.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()

    model.set_adapter("second")
    alone = torch.tanh(x @ (base.lin0.weight + lin0.get_delta_weight("second")).T + base.lin0.bias)
    alone = alone @ (base.lin1.weight + lin1.get_delta_weight("second")).T + base.lin1.bias
    torch.testing.assert_close(model(x), alone, rtol=1e-4, atol=1e-5)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("second" in name for name in trainable)

    model.delete_adapter("second")
    assert sorted(lin0.structune_delta) == sorted(lin0.structune_dropout) == ["default"]


def test_disabling_gives_the_base_model_also_when_merged(mlp, randomise) -> None:
    x = torch.randn(5, 10)
    expected = mlp()(x)
    model = randomise(get_peft_model(mlp(), config("hankel", "own")))
    with model.disable_adapter():
        assert torch.equal(model(x), expected)
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(model(x), expected)


def test_dropout_acts_on_the_adapter_in_training_only(mlp, randomise) -> None:
    x = torch.randn(400, 10)
    model = randomise(get_peft_model(mlp(), config("circulant", "own", dropout=0.5)))
    layer = adapted_layers(model)[0]
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    update = layer(x) - layer.base_layer(x)
    delta = layer.structune_delta["default"]
    assert (update - delta(x)).abs().max() > 1e-2
    mean = torch.stack([layer(x) - layer.base_layer(x) for _ in range(400)]).mean(0)
    assert (mean - delta(x)).norm() < 0.1 * delta(x).norm(), "dropout keeps the expectation"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_safe_merge_refuses_values_that_are_not_finite(value, mlp, randomise) -> None:
    model = randomise(get_peft_model(mlp(), config("toeplitz", "own")))
    lin0 = adapted_layers(model)[0]
    weight = lin0.get_base_layer().weight.clone()
    with torch.no_grad():
        lin0.structune_delta["default"].pool[0] = value
    with pytest.raises(ValueError, match="adapter 'default' would put NaN or infinite values"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(lin0.get_base_layer().weight, weight)
    assert not lin0.merged


def test_integer_weights_are_refused_before_they_are_touched(mlp) -> None:
    layer = adapted_layers(get_peft_model(mlp(), config("circulant", "own")))[0]
    layer.get_base_layer().weight = nn.Parameter(torch.ones(14, 10, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"cannot be merged into a weight of dtype torch\.int8"):
        layer.merge()
    assert not layer.merged


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base_keeps_the_adapter_in_fp32_and_its_output_in_half(dtype, mlp, randomise) -> None:
    x = torch.randn(5, 10)
    reference = randomise(get_peft_model(mlp(), config("vandermonde", "pool")))(x)
    model = randomise(get_peft_model(mlp().to(dtype), config("vandermonde", "pool")))
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    y = model(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - reference).norm() / reference.norm() < 0.02
    y.float().sum().backward()
    assert adapted_layers(model)[0].structune_delta["default"].pool.grad.dtype == torch.float32
    model.merge_adapter()
    assert (model(x.to(dtype)).float() - reference).norm() / reference.norm() < 0.02


def test_half_precision_adapter_also_starts_as_a_no_op(mlp) -> None:
    model = get_peft_model(mlp().bfloat16(), config("cauchy_like", "frozen"), autocast_adapter_dtype=False)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    x = torch.randn(5, 10, dtype=torch.bfloat16)
    assert torch.equal(model(x), mlp().bfloat16()(x))


@pytest.mark.parametrize("structure", structune.structures.names())
def test_autocast_gives_the_same_up_to_its_precision(structure, mlp, randomise) -> None:
    x = torch.randn(5, 10)
    model = randomise(get_peft_model(mlp(), config(structure, "own")))
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).norm() / expected.norm() < 0.02
    y.float().sum().backward()
    gradient = adapted_layers(model)[0].structune_delta["default"].pool.grad
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-4


def test_layer_says_what_it_is(mlp) -> None:
    layer = adapted_layers(get_peft_model(mlp(), structune.hydra("toeplitz", pool_size=9, target_modules=["lin0"])))[0]
    assert isinstance(layer, StructuneLinear)
    assert "14×10 = 4×4 blocks of 4×3 toeplitz, 9 trainable in a pool, scale=1, algorithm=auto" in repr(layer)
    with pytest.raises(ValueError, match=r"adapter 'other' is not on this layer; it has \['default'\]"):
        layer.get_delta_weight("other")
