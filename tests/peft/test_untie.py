"""Tied weights: merged is what was adapted, and what is saved is loaded as it was merged, for every tie."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

import structune
from structune.peft import StructuneLayer

LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
MODELS: dict[str, tuple[Callable[[], PreTrainedModel], list[list[str]]]] = {
    "bert": (
        lambda: BertForMaskedLM(BertConfig(vocab_size=50, **BERT)),
        [["decoder"], ["word_embeddings"], ["decoder", "word_embeddings"]],
    ),
    "bart": (
        lambda: BartForConditionalGeneration(
            BartConfig(vocab_size=50, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **LAYERS)
        ),
        [["lm_head"], ["embed_tokens"], ["decoder.embed_tokens"], ["lm_head", "encoder.embed_tokens"]],
    ),
    "t5": (
        lambda: T5ForConditionalGeneration(T5Config(vocab_size=50, **T5)),
        [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]],
    ),
    "umt5": (
        lambda: UMT5ForConditionalGeneration(UMT5Config(vocab_size=50, **T5)),
        [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]],
    ),
    "gpt2": (
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
        ),
        [["wte"], ["lm_head"], ["wte", "lm_head"]],
    ),
}
CASES = [(name, targets) for name, (_, ties) in MODELS.items() for targets in ties]
IDS = [f"{name}-{'+'.join(targets)}" for name, targets in CASES]


def made(name: str) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    bare = MODELS[name][0]().eval()
    for parameter in bare.parameters():
        nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(3, 12)[None]
    return bare, {"input_ids": ids} | ({"decoder_input_ids": ids + 7} if bare.config.is_encoder_decoder else {})


def adapted(bare: nn.Module, targets: list[str]) -> nn.Module:
    return get_peft_model(bare, structune.c3a(block_size=4, target_modules=targets, init_weights=False)).eval()


def quietly(do: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The result, and what was said about tied weights."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = do()
    said = [str(warning.message) for warning in caught]
    return result, [text for text in said if "tie" in text.lower() or "shares" in text]


@pytest.mark.parametrize(("name", "targets"), CASES, ids=IDS)
def test_merged_saved_and_loaded(name, targets, tmp_path) -> None:
    bare, inputs = made(name)
    plain = bare(**inputs).logits
    model, of_injecting = quietly(lambda: adapted(bare, targets))
    y = model(**inputs).logits
    assert (y - plain).abs().max() > 1e-2
    merged, of_merging = quietly(lambda: model.merge_and_unload(safe_merge=True))
    assert not of_injecting
    (said,) = of_merging
    assert any(f"{target} shares its weight with" in said for target in targets)
    assert "tie_word_embeddings" in said
    torch.testing.assert_close(merged(**inputs).logits, y, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path)
    loaded = type(merged).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, y, rtol=1e-4, atol=1e-4)
    assert merged.config.tie_word_embeddings == (name == "umt5")


@pytest.mark.parametrize(("name", "targets"), CASES, ids=IDS)
def test_merged_in_place_and_taken_out_again(name, targets) -> None:
    bare, inputs = made(name)
    plain = bare(**inputs).logits
    model = adapted(bare, targets)
    y = model(**inputs).logits
    for time in range(2):
        _, said = quietly(model.merge_adapter)
        assert len(said) == (1 if time == 0 else 0)
        torch.testing.assert_close(model(**inputs).logits, y, rtol=1e-4, atol=1e-4)
        model.unmerge_adapter()
        with model.disable_adapter():
            torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(**inputs).logits, y, rtol=1e-4, atol=1e-4)


def test_layers_that_share_nothing_say_nothing() -> None:
    bare, _ = made("bert")
    _, said = quietly(adapted(bare, ["query"]).merge_and_unload)
    assert not said
    assert bare.config.tie_word_embeddings
    assert bare.cls.predictions.decoder.weight is bare.bert.embeddings.word_embeddings.weight


class Twice(nn.Module):
    """One module under two names, and one block that is run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = self.first
        block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.blocks = nn.ModuleList([block, block])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.second(self.first(x).tanh())


def test_a_module_that_is_registered_twice_is_two_after_merging() -> None:
    torch.manual_seed(0)
    bare, x = Twice(), torch.randn(3, 8)
    plain = bare(x)
    model = adapted(copy.deepcopy(bare), ["first"])
    y = model(x)
    assert (y - plain).abs().max() > 1e-2
    with pytest.warns(UserWarning, match="first shares its weight with second: an adapted layer gets a copy"):
        merged = model.merge_and_unload()
    assert merged.first is not merged.second
    assert torch.equal(merged.second.weight, bare.second.weight)
    torch.testing.assert_close(merged(x), y, rtol=1e-4, atol=1e-5)


def test_a_block_that_is_run_twice_stays_one() -> None:
    torch.manual_seed(0)
    bare, x = Twice(), torch.randn(3, 8)
    model = adapted(bare, ["0.0"])
    y = model(x)
    merged, said = quietly(model.merge_and_unload)
    assert not said
    assert merged.blocks[0] is merged.blocks[1]
    assert not any(isinstance(module, StructuneLayer) for module in merged.modules())
    torch.testing.assert_close(merged(x), y, rtol=1e-4, atol=1e-5)
