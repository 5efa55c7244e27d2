"""Batches whose samples go through different adapters: each row is what that adapter gives alone."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import structune

NAMES = ["second", "__base__", "default", "second", "default"]


def two_adapters(model, targets, randomise, **kwargs):
    model = get_peft_model(model, structune.c3a(block_size=4, target_modules=targets, **kwargs))
    model.add_adapter(
        "second", structune.hydra("hankel", pool_size=20, num_splits=2, target_modules=targets[:1], seed=1)
    )
    model.base_model.set_adapter(["default", "second"])  # trainable, so that both are given numbers
    randomise(model).eval().set_adapter("default")
    return model


def row_by_row(model, call):
    """What each sample gets with its adapter alone."""
    rows = []
    for k, name in enumerate(NAMES):
        if name == "__base__":
            with model.disable_adapter():
                rows.append(call(slice(k, k + 1)))
        else:
            model.set_adapter(name)
            rows.append(call(slice(k, k + 1)))
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("bare", "x", "targets"),
    [
        (nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5)), torch.randn(5, 3, 8), ["0", "2"]),
        (nn.Sequential(nn.Conv1d(8, 6, 3), nn.Tanh(), nn.Conv1d(6, 5, 3)), torch.randn(5, 8, 11), ["0", "2"]),
        (nn.Sequential(nn.Embedding(21, 8), nn.Linear(8, 6)), torch.randint(0, 21, (5, 4)), ["0", "1"]),
    ],
    ids=["linear", "conv", "embedding"],
)
def test_each_sample_has_its_adapter(bare, x, targets, randomise) -> None:
    torch.manual_seed(0)
    model = two_adapters(copy.deepcopy(bare), targets, randomise)
    mixed = model(x, adapter_names=NAMES)
    expected = row_by_row(model, lambda rows: model(x[rows]))
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)
    base = bare(x)
    assert torch.equal(mixed[1], base[1])
    assert min((mixed - base)[[0, 2, 3, 4]].flatten(1).abs().amax(1)) > 1e-2
    model.set_adapter("default")
    assert torch.equal(model(x, adapter_names=NAMES), mixed)  # whichever is active
    torch.testing.assert_close(model(x, adapter_names=["default"] * 5), model(x), rtol=1e-4, atol=1e-5)


def test_a_classifier_of_each_adapter_goes_with_it(bert, ids, randomise) -> None:
    model = get_peft_model(bert(), structune.c3a(block_size=8, modules_to_save=["classifier"], task_type="SEQ_CLS"))
    randomise(model).eval()
    mixed = model(ids, adapter_names=["default", "__base__"]).logits
    torch.testing.assert_close(mixed[:1], model(ids[:1]).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1:], bert()(ids[1:]).logits, rtol=1e-4, atol=1e-5)


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, bos_token_id=0, eos_token_id=39, **sizes)).eval()


def t5():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=40, decoder_start_token_id=0, eos_token_id=39, **sizes)
    ).eval()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("make", "targets"), [(llama, ["q_proj", "v_proj"]), (t5, ["q", "v"])], ids=["llama", "t5"])
def test_generation_with_an_adapter_for_each_sample(make, targets, beams, randomise) -> None:
    task = "CAUSAL_LM" if make is llama else "SEQ_2_SEQ_LM"
    model = two_adapters(make(), targets, lambda m: randomise(m, std=1.0), task_type=task)
    ids = torch.randint(1, 38, (5, 6))
    how = {"num_beams": beams, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    mixed = model.generate(input_ids=ids, adapter_names=NAMES, **how)
    expected = row_by_row(model, lambda rows: model.generate(input_ids=ids[rows], **how))
    assert torch.equal(mixed, expected)
    with model.disable_adapter():
        plain = model.generate(input_ids=ids, **how)
    assert not torch.equal(mixed, plain)


def test_hooks_are_gone_afterwards(randomise) -> None:
    model = two_adapters(nn.Sequential(nn.Linear(8, 6)), ["0"], randomise)
    x = torch.randn(5, 8)
    with pytest.raises(ValueError, match="adapter_names has 2 names for a batch of 5: give one for each sample"):
        model(x, adapter_names=["default", "second"])
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model(x).shape == (5, 6)


@pytest.mark.parametrize(
    ("names", "prepare", "error", "said"),
    [
        (
            ["defualt"] * 5,
            lambda m: None,
            ValueError,
            r"adapter_names has \['defualt'\], but the model has \['default', ",
        ),
        ("default", lambda m: None, TypeError, "adapter_names='default' must be a list with the name of an adapter"),
        (["default"] * 5, lambda m: m.train(), ValueError, r"call model\.eval\(\) first"),
        (
            ["default"] * 5,
            lambda m: m.merge_adapter(),
            ValueError,
            r"\['default'\] are merged: call unmerge_adapter\(\)",
        ),
    ],
)
def test_what_cannot_be_mixed_is_said(names, prepare, error, said, randomise) -> None:
    model = two_adapters(nn.Sequential(nn.Linear(8, 6)), ["0"], randomise)
    prepare(model)
    with pytest.raises(error, match=said):
        model(torch.randn(5, 8), adapter_names=names)


def test_parameters_cannot_be_mixed(randomise) -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    model = randomise(get_peft_model(model, structune.c3a(block_size=4, target_modules=["0"]))).eval()
    attention = model.base_model.model[0]
    x = torch.randn(3, 2, 8)
    with pytest.raises(TypeError, match="ΔW of 'in_proj_weight' has no output of its own"):
        attention(x, x, x, adapter_names=["default"] * 3)
