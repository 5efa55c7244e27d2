"""Adapters saved from and loaded into models without PEFT's wrapper."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, inject_adapter_in_model
from safetensors.torch import load_file, save_file

import structune
from structune.peft import StructuneLayer

CONFIG = {"num_splits": 2, "pool_size": 20, "target_modules": ["lin0", "lin1"], "init_weights": False}


@pytest.fixture
def trained(mlp, randomise):
    return randomise(inject_adapter_in_model(structune.hydra("toeplitz", **CONFIG), mlp(), "one")).eval()


def test_what_is_saved_loads_into_bare_and_wrapped_models(trained, mlp, tmp_path) -> None:
    structune.save_adapter(trained, tmp_path / "adapter", "one")
    x = torch.randn(3, 10)
    bare = mlp()
    structune.load_adapter(bare, tmp_path / "adapter", "two")
    assert not torch.equal(bare(x), mlp()(x))
    assert torch.equal(bare(x), trained(x))
    assert not any(parameter.requires_grad for parameter in bare.parameters())
    assert torch.equal(PeftModel.from_pretrained(mlp(), tmp_path / "adapter")(x), trained(x))


def test_what_peft_saved_loads_too(mlp, randomise, tmp_path) -> None:
    from peft import get_peft_model

    wrapped = randomise(get_peft_model(mlp(), structune.c3a(block_size=4, target_modules=["lin0"]))).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    bare = mlp()
    structune.load_adapter(bare, tmp_path / "adapter", is_trainable=True)
    x = torch.randn(3, 10)
    assert torch.equal(bare(x), wrapped(x))
    assert [name for name, p in bare.named_parameters() if p.requires_grad] == ["lin0.structune_delta.default.pool"]


def test_a_second_adapter_stands_beside_the_first(trained, mlp, randomise, tmp_path) -> None:
    other = randomise(
        inject_adapter_in_model(structune.c3a(block_size=4, target_modules=["lin1"]), mlp(), "default"), seed=5
    ).eval()
    structune.save_adapter(other, tmp_path / "adapter")
    x = torch.randn(3, 10)
    before = trained(x)
    structune.load_adapter(trained, tmp_path / "adapter", "two")
    assert torch.equal(trained(x), other(x))
    for layer in trained.modules():
        if isinstance(layer, StructuneLayer):
            layer.set_adapter("one")
    assert torch.equal(trained(x), before)
    with pytest.raises(ValueError, match=r"adapter_name='two' is taken: the model has \['one', 'two'\]"):
        structune.load_adapter(trained, tmp_path / "adapter", "two")


@pytest.mark.parametrize("is_trainable", [False, True])
def test_modules_trained_in_full_come_along(is_trainable, mlp, randomise, tmp_path) -> None:
    config = structune.c3a(block_size=4, target_modules=["lin0"], modules_to_save=["lin1"])
    trained = randomise(inject_adapter_in_model(config, mlp())).eval()
    structune.save_adapter(trained, tmp_path / "adapter")
    bare = mlp()
    structune.load_adapter(bare, tmp_path / "adapter", "two", is_trainable=is_trainable)
    x = torch.randn(3, 10)
    assert torch.equal(bare(x), trained(x))
    learning = [name for name, parameter in bare.named_parameters() if parameter.requires_grad]
    names = ["lin0.structune_delta.two.pool", "lin1.modules_to_save.two.weight", "lin1.modules_to_save.two.bias"]
    assert learning == (names if is_trainable else [])


def test_a_broken_file_leaves_the_model_alone(trained, mlp, tmp_path) -> None:
    structune.save_adapter(trained, tmp_path / "adapter", "one")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors["base_model.model.lin1.structune_delta.pool"] = torch.ones(7)
    save_file(tensors, weights)
    bare = mlp()
    names = [name for name, _ in bare.named_modules()]
    with pytest.raises(ValueError, match=r"lin1.structune_delta.*has shape \(7,\)"):
        structune.load_adapter(bare, tmp_path / "adapter")
    assert [name for name, _ in bare.named_modules()] == names
    assert all(parameter.requires_grad for parameter in bare.parameters())

    x = torch.randn(3, 10)
    before, flags = trained(x), [p.requires_grad for p in trained.parameters()]
    with pytest.raises(ValueError, match="has shape"):
        structune.load_adapter(trained, tmp_path / "adapter", "two")
    assert torch.equal(trained(x), before)
    assert [p.requires_grad for p in trained.parameters()] == flags
    assert list(trained.peft_config) == ["one"]


def test_bad_names_and_folders(trained, mlp, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"adapter_name='none': the model has \['one'\]"):
        structune.save_adapter(trained, tmp_path / "adapter", "none")
    with pytest.raises(ValueError, match="adapter_name='default': the model has no structune adapter"):
        structune.save_adapter(mlp(), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    structune.save_adapter(trained, tmp_path / "adapter", "one")
    with pytest.raises(FileExistsError, match="holds files already"):
        structune.save_adapter(trained, tmp_path / "adapter", "one")
