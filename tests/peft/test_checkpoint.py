"""Saving and loading: bit-identical, small, and refusing what is broken or foreign."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, RobertaConfig, RobertaModel

import structune
from structune.identity import Identity
from structune.peft import StructuneLayer

from ..forked import python

POOLED = {"pool_size": 20, "fixed_ratio": 0.3, "rank": 2}


def pooled() -> structune.StructuneConfig:
    return structune.hydra("toeplitz_like", seed=3, target_modules=["query", "value"], **POOLED)


@pytest.fixture
def saved(bert, randomise, ids, tmp_path):
    """A saved pooled adapter and the logits of its model."""
    model = randomise(get_peft_model(bert(), pooled()))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model(ids).logits


@pytest.mark.parametrize("structure", structune.structures.names())
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("init_weights", [True, False])
def test_loading_is_bit_identical(structure, low_cpu_mem_usage, init_weights, bert, ids, randomise, tmp_path) -> None:
    config = structune.hydra(structure, pool_size=20, fixed_ratio=0.3, seed=3, init_weights=init_weights)
    model = randomise(get_peft_model(bert(), config))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert not torch.equal(loaded(ids).logits, bert()(ids).logits)
    assert not any(p.is_meta for p in loaded.parameters())
    assert not any(b.is_meta for b in loaded.buffers())


def test_the_file_holds_trainable_numbers_and_seeds_only(saved) -> None:
    tensors = load_file(saved[0] / "adapter_model.safetensors")
    assert {key.rsplit(".", 1)[1] for key in tensors} == {"pool", "_extra_state"}
    assert all(t.numel() == 14 for key, t in tensors.items() if key.endswith("pool"))
    assert {Identity.from_digits(t).seed for key, t in tensors.items() if key.endswith("_extra_state")} == {3}
    assert json.loads((saved[0] / "adapter_config.json").read_text())["sampler_version"] == 1


def test_a_c3a_adapter_of_24_matrices_is_below_100_kb(tmp_path) -> None:
    with torch.device("meta"):
        model = get_peft_model(
            RobertaModel(RobertaConfig()), structune.c3a(block_size=768, target_modules=["query", "value"])
        )
    for module in model.modules():
        if isinstance(module, StructuneLayer):
            module.structune_delta.to_empty(device="cpu")
            torch.nn.init.normal_(module.structune_delta["default"].pool)
    model.save_pretrained(tmp_path)
    assert 18_432 * 4 < (tmp_path / "adapter_model.safetensors").stat().st_size < 100_000


def test_a_fresh_process_loads_it_after_one_import(saved, bert, ids, tmp_path) -> None:
    folder, logits = saved
    bert().save_pretrained(tmp_path / "base")
    torch.save(ids, tmp_path / "ids.pt")
    torch.save(logits, tmp_path / "logits.pt")
    program = """
import sys, torch, structune
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
base, adapter, ids, logits = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base), adapter).eval()
difference = (model(torch.load(ids)).logits - torch.load(logits)).abs().max().item()
assert difference == 0, difference
"""
    arguments = [tmp_path / "base", folder, tmp_path / "ids.pt", tmp_path / "logits.pt"]
    python(program, *map(str, arguments))


def test_peft_and_transformers_auto_classes_load_it(bert, ids, randomise, tmp_path) -> None:
    bert().save_pretrained(tmp_path / "base")
    base = BertForSequenceClassification.from_pretrained(tmp_path / "base").eval()
    config = pooled()
    config.task_type = TaskType.SEQ_CLS
    model = randomise(get_peft_model(base, config))
    model.save_pretrained(tmp_path / "adapter")
    expected = model(ids).logits
    auto = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3).eval()
    assert torch.equal(auto(ids).logits, expected)
    native = BertForSequenceClassification.from_pretrained(tmp_path / "base").eval()
    native.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(native(ids).logits, expected)


def test_transformers_add_adapter_saves_and_loads(bert, ids, randomise, tmp_path) -> None:
    model = bert()
    model.add_adapter(pooled())
    randomise(model)
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    fresh = bert()
    fresh.load_adapter(str(tmp_path))
    assert torch.equal(fresh(ids).logits, expected)
    fresh.disable_adapters()
    assert torch.equal(fresh(ids).logits, bert()(ids).logits)


def test_a_checkpoint_does_not_depend_on_module_names(saved, bert, ids, tmp_path) -> None:
    """The stream of a layer's seed is derived from its name once, and travels with the weights from then on."""
    folder, logits = saved

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = bert()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(ids).logits

    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    save_file(
        {key.replace("base_model.model.", "base_model.model.inner."): value for key, value in tensors.items()},
        renamed / "adapter_model.safetensors",
    )
    (renamed / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    assert torch.equal(PeftModel.from_pretrained(Wrapped(), renamed).eval()(ids), logits)


def test_a_truncated_file_is_refused(saved, bert) -> None:
    file = saved[0] / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is not a whole safetensors file .*copy it again"):
        PeftModel.from_pretrained(bert(), saved[0])


def test_another_methods_file_is_refused(saved, bert, tmp_path) -> None:
    get_peft_model(bert(), LoraConfig(target_modules=["query"])).save_pretrained(tmp_path / "lora")
    (saved[0] / "adapter_model.safetensors").write_bytes((tmp_path / "lora/adapter_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="holds no structune adapter .*another method's checkpoint"):
        PeftModel.from_pretrained(bert(), saved[0])


def test_a_pickle_is_refused(saved, bert) -> None:
    (saved[0] / "adapter_model.safetensors").rename(saved[0] / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model\.bin is a pickle"):
        PeftModel.from_pretrained(bert(), saved[0])


def edit(folder, change) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def reseeded(digits: torch.Tensor, seed: int) -> torch.Tensor:
    return replace(Identity.from_digits(digits), seed=seed).digits()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(sorted(t)[0]), "lacks 1 of the 8 tensors"),
        (lambda t: [t.pop(key) for key in list(t) if key.endswith("_extra_state")], "lacks 4 of the 8 tensors"),
        (lambda t: t.update({"base_model.model.bert.x.structune_delta.pool": torch.ones(3)}), "no place for"),
        (lambda t: t.update({key: torch.ones(5) for key in t if "pool" in key}), r"has shape \(5,\) .*and \(14,\)"),
        (lambda t: t.update({key: v.int() for key, v in t.items() if "pool" in key}), "dtype torch.int32"),
        (
            lambda t: t.update({key: reseeded(v, 4) for key, v in t.items() if key.endswith("_extra_state")}),
            "trained with seed=4, this adapter is configured with seed=3.*configure seed=4",
        ),
    ],
)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_checkpoint_that_does_not_fit_is_refused(change, said, low_cpu_mem_usage, saved, bert) -> None:
    edit(saved[0], change)
    with pytest.raises(ValueError, match=said):
        PeftModel.from_pretrained(bert(), saved[0], low_cpu_mem_usage=low_cpu_mem_usage)


def test_an_edited_seed_in_the_configuration_is_noticed(saved, bert) -> None:
    file = saved[0] / "adapter_config.json"
    file.write_text(file.read_text().replace('"seed": 3', '"seed": 5'))
    with pytest.raises(ValueError, match="trained with seed=3, this adapter is configured with seed=5"):
        PeftModel.from_pretrained(bert(), saved[0])


def test_a_refused_checkpoint_leaves_a_live_adapter_as_it_was(saved, bert, ids, randomise) -> None:
    model = randomise(get_peft_model(bert(), pooled()), seed=8)
    expected = model(ids).logits
    edit(saved[0], lambda t: t.pop(sorted(t)[0]))
    with pytest.raises(ValueError, match="lacks 1"):
        model.load_adapter(saved[0], "default")
    assert torch.equal(model(ids).logits, expected)
