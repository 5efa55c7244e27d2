"""Adapters whose pool is read with signs or through a projection: saved, added up, swapped."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file

import structune
from structune import pool_maps

other_maps = pytest.mark.parametrize("name", pool_maps.NAMES[1:])


def config_of(name: str, **options):
    return structune.hydra("toeplitz", pool_size=20, pool_map=name, target_modules=["query"], seed=3, **options)


@other_maps
def test_a_file_says_its_map_and_holds_no_table(name, bert, ids, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), config_of(name, fixed_ratio=0.25)))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {key.rsplit(".", 1)[1]: len(t) for key, t in tensors.items()} == {"pool": 15, "_extra_state": 53}
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    assert loaded.peft_config["default"].pool_map == name
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert not torch.equal(loaded(ids).logits, bert()(ids).logits)


def test_files_that_do_not_say_have_an_index_map(bert, ids, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), config_of("index")))
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    saved = json.loads(file.read_text())
    assert saved.pop("pool_map") == "index"
    file.write_text(json.dumps(saved))
    for config in (structune.StructuneConfig.from_pretrained(tmp_path), PeftConfig.from_pretrained(tmp_path)):
        assert config.pool_map == "index"
    assert torch.equal(PeftModel.from_pretrained(bert(), tmp_path)(ids).logits, model(ids).logits)


@other_maps
def test_two_adapters_of_one_map_add_up_in_their_pools(name, bert, ids, randomise) -> None:
    model = get_peft_model(bert(), config_of(name))
    model.add_adapter("second", config_of(name))
    randomise(model, std=1.0)
    model.base_model.add_weighted_adapter(["default", "second"], [0.7, -1.3], "sum")
    config = model.peft_config["sum"]
    assert (config.pool_size, config.pool_map) == (20, name)
    for layer in (m for m in model.modules() if isinstance(m, structune.peft.StructuneLayer)):
        of = layer.get_delta_weight
        torch.testing.assert_close(of("sum"), 0.7 * of("default") - 1.3 * of("second"), rtol=1e-4, atol=1e-5)
        assert layer.delta("sum").num_trainable == 20


def test_adapters_of_different_maps_add_up_in_numbers_of_their_own(bert, randomise) -> None:
    model = get_peft_model(bert(), config_of("signed"))
    model.add_adapter("second", config_of("projection"))
    randomise(model, std=1.0)
    model.base_model.add_weighted_adapter(["default", "second"], [0.7, -1.3], "sum")
    assert model.peft_config["sum"].pool_size is None
    for layer in (m for m in model.modules() if isinstance(m, structune.peft.StructuneLayer)):
        of = layer.get_delta_weight
        torch.testing.assert_close(of("sum"), 0.7 * of("default") - 1.3 * of("second"), rtol=1e-4, atol=1e-5)


@other_maps
def test_only_numbers_of_the_same_map_are_swapped_in(name, bert, ids, randomise, tmp_path) -> None:
    for map_name in (name, "index"):
        randomise(get_peft_model(bert(), config_of(map_name)), seed=1).save_pretrained(tmp_path / map_name)
    model = get_peft_model(bert(), config_of(name))
    structune.hotswap_adapter(model, tmp_path / name)
    expected = PeftModel.from_pretrained(bert(), tmp_path / name)(ids).logits
    torch.testing.assert_close(model(ids).logits, expected)
    with pytest.raises(ValueError, match=f"pool_map='index', but adapter 'default' has '{name}'"):
        structune.hotswap_adapter(model, tmp_path / "index")


@other_maps
def test_one_pool_for_the_model(name, bert, ids, randomise, tmp_path) -> None:
    """Each matrix reads it in its own way; it is in the file once, and sums stay in it."""
    config = structune.hydra(
        "toeplitz", pool_size=13, pool_map=name, pool_scope="model", target_modules=["query", "value"], seed=3
    )
    model = get_peft_model(bert(), config)
    model.add_adapter("second", config)
    randomise(model, std=1.0)
    layers = [m for m in model.modules() if isinstance(m, structune.peft.StructuneLayer)]
    updates = [layer.get_delta_weight("default").detach() for layer in layers]
    assert len({tuple(update.flatten()[:8].tolist()) for update in updates}) == len(layers) == 4
    assert len({id(layer.delta("default").pool) for layer in layers}) == 1

    model.base_model.add_weighted_adapter(["default", "second"], [0.7, -1.3], "sum")
    for layer in layers:
        of = layer.get_delta_weight
        torch.testing.assert_close(of("sum"), 0.7 * of("default") - 1.3 * of("second"), rtol=1e-4, atol=1e-5)

    model.set_adapter("default")
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(len(t) for key, t in tensors.items() if key.endswith("pool")) == 13
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    other = get_peft_model(bert(), replace(config, pool_map="index"))
    with pytest.raises(ValueError, match=f"trained with pool_map='{name}'.*configure pool_map='{name}'"):
        set_peft_model_state_dict(other, tensors)


@other_maps
def test_lora_is_projected_onto_what_the_map_can_say(name, bert, randomise) -> None:
    """What is left of LoRA's ΔW has no part along any number of the pool."""
    lora = randomise(get_peft_model(bert(), LoraConfig(r=2, target_modules=["query"])), std=1.0)
    options = {"structure": "toeplitz", "num_splits": 2, "pool_size": 20, "pool_map": name, "seed": 3}
    converted = structune.convert.from_lora(lora, **options)
    model = converted.load_into(bert())
    theirs = [m for m in lora.modules() if hasattr(m, "lora_A") and hasattr(m, "get_delta_weight")]
    for layer, other in zip(
        (m for m in model.modules() if isinstance(m, structune.peft.StructuneLayer)), theirs, strict=True
    ):
        delta = layer.delta("default").double()
        left = other.get_delta_weight("default").detach().double() - delta.dense()
        assert delta.dense().detach().norm() > 0.05 * left.norm()
        gradient = torch.autograd.grad((left.detach() * delta.dense()).sum(), delta.pool)[0]
        assert gradient.abs().max() < 1e-4 * left.norm() * (delta.num_blocks * delta.structure.numel) ** 0.5
