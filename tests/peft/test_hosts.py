"""What hosts read from adapted layers, and what they do with them: casting, rescaling, moving, mixing, swapping."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from peft import LoraConfig, PeftMixedModel, PeftModel, get_peft_model, inject_adapter_in_model
from peft.helpers import disable_input_dtype_casting, rescale_adapter_scale
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer
from structune.peft.several.mixed_methods import join_mixed_models
from structune.peft.storage.hosts import complete_hosts

FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]
CIRCULANT = {"block_size": 4, "init_weights": False}


def layers_of(model: nn.Module) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


def pair(mlp) -> nn.Module:
    """Two adapters, one on both layers and one on the last."""
    model = inject_adapter_in_model(structune.c3a(**CIRCULANT, target_modules=["lin0", "lin1"]), mlp(), "one")
    return inject_adapter_in_model(
        structune.hydra("toeplitz", num_splits=2, pool_size=20, init_weights=False, target_modules=["lin1"]),
        model,
        "two",
    ).eval()


def activate(model: nn.Module, *names: str) -> nn.Module:
    for layer in layers_of(model):
        layer.set_adapter(list(names))
    return model


@pytest.mark.parametrize("dtype", FLOAT8)
def test_adapters_of_a_float8_layer_are_trained_and_saved_in_float32(dtype, tmp_path) -> None:
    net = nn.Sequential(nn.Linear(16, 16).to(dtype))
    inject_adapter_in_model(structune.c3a(**CIRCULANT, target_modules=["0"]), net)
    (layer,) = layers_of(net)
    assert layer.base_layer.weight.dtype == dtype
    assert layer.delta("default").pool.dtype == torch.float32
    structune.save_adapter(net, tmp_path / "adapter")
    other = nn.Sequential(nn.Linear(16, 16))
    structune.load_adapter(other, tmp_path / "adapter")
    expected = layer.get_delta_weight("default")
    assert expected.abs().max() > 0.1
    assert torch.equal(layers_of(other)[0].get_delta_weight("default"), expected)
    low = nn.Sequential(nn.Linear(16, 16).to(dtype))
    structune.load_adapter(low, tmp_path / "adapter")
    assert torch.equal(layers_of(low)[0].get_delta_weight("default"), expected)


@pytest.mark.parametrize(
    "config", [CIRCULANT, {"structure": "cauchy", "num_splits": 2, "pool_size": 30, "fixed_ratio": 0.3}]
)
def test_a_model_that_is_cast_to_float8_keeps_its_adapters_numbers(config) -> None:
    net = inject_adapter_in_model(StructuneConfig(**config, target_modules=["0"]), nn.Sequential(nn.Linear(16, 16)))
    delta = layers_of(net)[0].delta("default")
    with torch.no_grad():
        delta.pool.normal_()
    numbers, whole = delta.pool.clone(), delta.dense()
    for model in (net, copy.deepcopy(net)):
        model.to(torch.float8_e4m3fn)
        assert torch.equal(layers_of(model)[0].delta("default").pool, numbers)
        assert torch.equal(layers_of(model)[0].get_delta_weight("default"), whole)
    assert delta.pool.requires_grad
    net.to(torch.bfloat16)
    assert delta.pool.dtype == torch.bfloat16
    assert net.to("meta") is net
    assert delta.pool.is_meta


def test_a_state_dict_that_somebody_has_cast_is_not_saved(mlp, tmp_path) -> None:
    model = get_peft_model(mlp(), structune.c3a(block_size=4, target_modules=["lin0"]))
    low = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"is torch.float8_e4m3fn in the state dict, .* hand in one that was not cast"):
        model.save_pretrained(tmp_path, state_dict=low)
    assert not (tmp_path / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("dtype", FLOAT8)
def test_nothing_is_merged_into_float8(dtype) -> None:
    net = nn.Sequential(nn.Linear(16, 16).to(dtype))
    inject_adapter_in_model(structune.c3a(**CIRCULANT, target_modules=["0"]), net)
    with pytest.raises(
        TypeError, match=f"cannot be merged into a weight of dtype {dtype}: merge into the model before"
    ):
        layers_of(net)[0].merge()


def test_casting_of_inputs_can_be_switched_as_in_peft(mlp) -> None:
    model = pair(mlp)
    with disable_input_dtype_casting(model):
        assert [layer.cast_input_dtype_enabled for layer in layers_of(model)] == [False, False]
    assert [layer.cast_input_dtype_enabled for layer in layers_of(model)] == [True, True]


def test_a_scale_that_is_set_while_merged_holds_from_unmerging_on(mlp) -> None:
    """What was merged is taken out again, whatever has been set since."""
    model, x = activate(pair(mlp), "one", "two"), torch.randn(3, 10)
    base = mlp()(x)
    for layer in layers_of(model):
        layer.set_scale("one", 0.5)
    half = model(x)
    for layer in layers_of(model):
        layer.merge()
        layer.set_scale("one", 0.5)  # as it was: nothing to say
    torch.testing.assert_close(model(x), half)
    for layer in layers_of(model):
        with pytest.warns(UserWarning, match="adapter 'one' is merged with scale 0.5: the new one, 2, holds from when"):
            layer.set_scale("one", 2.0)
    torch.testing.assert_close(model(x), half)
    for layer in layers_of(model):
        layer.unmerge()
    for layer in layers_of(model):
        torch.testing.assert_close(
            layer.base_layer.weight, mlp().get_submodule("lin0" if layer.in_features == 10 else "lin1").weight
        )
    twice = model(x)
    for layer in layers_of(model):
        layer.set_scale("one", 2.0)
    assert torch.equal(model(x), twice)
    assert (twice - half).abs().max() > 1e-2
    assert (half - base).abs().max() > 1e-2


@pytest.mark.parametrize("multiplier", [0.5, 0, -2])
def test_pefts_rescaling_reaches_our_adapters_and_loras_beside_them(multiplier, mlp, randomise) -> None:
    model, x = activate(pair(mlp), "one"), torch.randn(3, 10)
    before = model(x)
    for layer in layers_of(model):
        layer.set_scale("one", multiplier)
    expected = model(x)
    for layer in layers_of(model):
        layer.set_scale("one", 1)
    with rescale_adapter_scale(model, multiplier):
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), before)
    with pytest.raises(TypeError, match="multiplier should be of type float"), rescale_adapter_scale(model, "2"):
        pass
    with pytest.raises(ValueError, match="scaling is only supported"), rescale_adapter_scale(mlp(), 0.5):
        pass
    lora = get_peft_model(mlp(), LoraConfig(target_modules=["lin0"], init_lora_weights=False))
    scaling = dict(lora.base_model.model.lin0.scaling)
    with rescale_adapter_scale(lora, multiplier):
        assert lora.base_model.model.lin0.scaling == {name: value * multiplier for name, value in scaling.items()}
    assert lora.base_model.model.lin0.scaling == scaling


@pytest.mark.parametrize("ours_first", [True, False])
def test_our_adapter_beside_loras_in_one_model(ours_first, mlp, tmp_path) -> None:
    x = torch.randn(3, 10)
    ours = {**CIRCULANT, "target_modules": ["lin0", "lin1"]}
    lora = {"r": 2, "target_modules": ["lin0"], "init_lora_weights": False}
    configs = {"ours": StructuneConfig(**ours), "lora": LoraConfig(**lora)}
    single = {}
    for name, config in configs.items():
        torch.manual_seed(4)
        alone = get_peft_model(mlp(), copy.deepcopy(config)).eval()
        alone.save_pretrained(tmp_path / name)
        single[name] = alone(x)
    order = ["ours", "lora"] if ours_first else ["lora", "ours"]
    model = PeftMixedModel.from_pretrained(mlp(), tmp_path / order[0], order[0]).eval()
    model.load_adapter(tmp_path / order[1], order[1])
    for name in order:
        model.set_adapter(name)
        torch.testing.assert_close(model(x), single[name])
    with model.disable_adapter():
        torch.testing.assert_close(model(x), mlp()(x))
    model.set_adapter(order)
    both = model(x)
    weights = mlp()
    for name in order:
        merged = PeftModel.from_pretrained(mlp(), tmp_path / name).merge_and_unload()
        for key, parameter in weights.named_parameters():
            parameter.data += merged.get_parameter(key) - mlp().get_parameter(key)
    torch.testing.assert_close(both, weights(x))
    assert (both - single["ours"]).abs().max() > 1e-3
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 4
    assert all(re.search("lora_[AB]|structune_delta", name) for name in trained)
    model.delete_adapter("lora")
    model.set_adapter("ours")
    torch.testing.assert_close(model(x), single["ours"])
    model.load_adapter(tmp_path / "lora", "again")
    model.set_adapter(["ours", "again"])
    torch.testing.assert_close(model(x), both)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), both)
    assert type(merged.lin0) is nn.Linear


@pytest.mark.parametrize("order", [("lora", "ours"), ("ours", "lora")])
def test_beside_loras_in_a_model_of_transformers(order) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    bare = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, **sizes)).eval()
    targets, ids = {"target_modules": ["q_proj"]}, torch.arange(5)[None]
    configs = {
        "ours": structune.c3a(**CIRCULANT, **targets),
        "lora": LoraConfig(r=2, init_lora_weights=False, **targets),
    }
    model = PeftMixedModel(bare, configs[order[0]], order[0]).eval()
    model.add_adapter(order[1], configs[order[1]])
    model.set_adapter("lora")
    without = model(ids).logits
    model.set_adapter(list(order))
    y = model(ids).logits
    assert (y - without).abs().max() > 1e-5
    torch.testing.assert_close(model.merge_and_unload()(ids).logits, y, rtol=1e-4, atol=1e-5)


def test_a_new_mixed_model_trains_both(mlp) -> None:
    model = get_peft_model(
        mlp(), StructuneConfig(block_size=4, target_modules=["lin0"]), mixed=True, adapter_name="ours"
    )
    model.add_adapter("lora", LoraConfig(target_modules=["lin0", "lin1"]))
    model.set_adapter(["ours", "lora"])
    model(torch.randn(3, 10)).square().sum().backward()
    moved = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert any("structune_delta.ours.pool" in name for name in moved)
    assert any("lora_B.lora" in name for name in moved)


def test_completing_the_hosts_twice_changes_nothing(mlp) -> None:
    from peft.tuners import mixed
    from transformers.integrations.peft import PeftAdapterMixin

    before = (
        PeftModel.load_adapter,
        PeftModel.from_pretrained.__func__,
        PeftAdapterMixin.load_adapter,
        rescale_adapter_scale,
    )
    complete_hosts()
    join_mixed_models()
    assert before == (
        PeftModel.load_adapter,
        PeftModel.from_pretrained.__func__,
        PeftAdapterMixin.load_adapter,
        rescale_adapter_scale,
    )
    assert len(set(mixed.COMPATIBLE_TUNER_TYPES)) == len(mixed.COMPATIBLE_TUNER_TYPES)


@pytest.mark.parametrize("enabled", [True, False])
def test_transformers_swaps_an_adapter_of_the_same_name(enabled, bert, ids, randomise, tmp_path) -> None:
    config = {"pool_size": 30, "target_modules": ["query"], "modules_to_save": ["classifier"]}
    expected = {}
    for seed in (1, 2):
        model = randomise(get_peft_model(bert(), structune.hydra("toeplitz", **config)), seed=seed)
        model.save_pretrained(tmp_path / str(seed))
        expected[seed] = model.eval()(ids).logits
    model = bert()
    if enabled:
        model.enable_peft_hotswap()
    model.load_adapter(str(tmp_path / "1"), "own")
    layer = layers_of(model)[0]
    pool = layer.delta("own").pool
    assert torch.equal(model(ids).logits, expected[1])
    if enabled:
        model.load_adapter(str(tmp_path / "2"), "own")
    else:
        with pytest.raises(ValueError, match="already exists"):
            model.load_adapter(str(tmp_path / "2"), "own")
        model.load_adapter(str(tmp_path / "2"), "own", hotswap=True)
    assert torch.equal(model(ids).logits, expected[2])
    assert layers_of(model)[0] is layer
    assert layer.delta("own").pool is pool
    with pytest.raises(ValueError, match="there must already be an existing adapter"):
        model.load_adapter(str(tmp_path / "2"), "other", hotswap=True)
