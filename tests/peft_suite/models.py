"""Small random models in folders that are named as the hub's models, so that the tests find them from that folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from peft import LoraConfig
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 64
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {**SIZES, **SPECIAL, "intermediate_size": 48, "num_key_value_heads": 1}
BERT = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 128}


def _make(model: str, config: str, **options: object) -> Callable[[], PreTrainedModel]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**options))


def _llama4() -> PreTrainedModel:
    text = transformers.Llama4TextConfig(
        **LLAMA, intermediate_size_mlp=48, num_local_experts=4, head_dim=16, interleave_moe_layer_step=1
    )
    return transformers.Llama4ForCausalLM(text)


TEXT: dict[str, Callable[[], PreTrainedModel]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": _make(
        "OPTForCausalLM",
        "OPTConfig",
        **SIZES,
        ffn_dim=48,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": _make(
        "GPT2LMHeadModel",
        "GPT2Config",
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": _make(
        "GPTJForCausalLM",
        "GPTJConfig",
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": _make("LlamaForCausalLM", "LlamaConfig", **LLAMA),
    "hf-internal-testing/tiny-random-LlamaForCausalLM": _make("LlamaForCausalLM", "LlamaConfig", **LLAMA),
    "peft-internal-testing/tiny-dummy-qwen2": _make("Qwen2ForCausalLM", "Qwen2Config", **LLAMA),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": _make(
        "Gemma3ForCausalLM", "Gemma3TextConfig", **LLAMA, head_dim=16, sliding_window=64
    ),
    "trl-internal-testing/tiny-Llama4ForCausalLM": _llama4,
    "trl-internal-testing/tiny-GptOssForCausalLM": _make(
        "GptOssForCausalLM", "GptOssConfig", **LLAMA, head_dim=16, num_local_experts=4, num_experts_per_tok=2
    ),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": _make(
        "T5ForConditionalGeneration",
        "T5Config",
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    ),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": _make(
        "BartForConditionalGeneration",
        "BartConfig",
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        forced_eos_token_id=2,
    ),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": _make(
        "BertForSequenceClassification", "BertConfig", **BERT
    ),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": _make(
        "RobertaForSequenceClassification", "RobertaConfig", **BERT
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": _make(
        "LlamaForSequenceClassification", "LlamaConfig", **LLAMA, num_labels=1
    ),
    "peft-internal-testing/tiny-random-BertModel": _make("BertModel", "BertConfig", **BERT),
    "peft-internal-testing/tiny-random-RobertaModel": _make("RobertaModel", "RobertaConfig", **BERT),
    "peft-internal-testing/tiny-random-DebertaModel": _make("DebertaModel", "DebertaConfig", **BERT),
    "peft-internal-testing/tiny-random-DebertaV2Model": _make("DebertaV2Model", "DebertaV2Config", **BERT),
}
"""Language models, each saved with a tokenizer of whole words."""

RESNET = "peft-internal-testing/tiny-random-ResNetForImageClassification"
PICTURES = "huggingface/cats-image"
LORA = "peft-internal-testing/tiny-opt-lora-revision"


def build(folder: Path) -> None:
    """Write all models, a configuration of LoRA's, and a data set of one picture, below a folder."""
    tokenizer = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2")
    for name, make in TEXT.items():
        torch.manual_seed(0)
        make().save_pretrained(folder / name)
        fast.save_pretrained(folder / name)
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(resnet).save_pretrained(folder / RESNET)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder / RESNET)
    LoraConfig(target_modules=["q_proj"]).save_pretrained(folder / LORA)
    picture = folder / PICTURES / "test" / "picture.png"
    picture.parent.mkdir(parents=True)
    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(picture)
