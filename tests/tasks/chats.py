"""A byte-level tokenizer with the template of a real one, and a Llama of two layers that reads it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from .parts.chats.real_templates import REAL, SPECIAL

VOCABULARY = "what is the sum of one two three four five six and say hello please answer question colour red blue"


def questions(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Questions of some words, all different, and answers to them that can be learned."""
    rng = random.Random(seed)
    found = {" ".join(rng.choices(VOCABULARY.split(), k=rng.randint(3, 9))): None for _ in range(3 * count)}
    return [(text, f"the answer is {len(text.split())} #### {len(text.split())}") for text in list(found)[:count]]


def chat_tokenizer(family: str = "smollm2", template: str | None = None) -> Any:
    """Byte pairs learned from a few sentences, with the template and special tokens of a family of models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for pair in questions(80, seed=1) for text in pair]
    tokenizer.train_from_iterator([*texts, "user assistant system You are a helpful assistant"], trainer)
    written, named = REAL[family]
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    made.add_special_tokens({"additional_special_tokens": [each for each in SPECIAL if each not in named.values()]})
    made.chat_template = written if template is None else template
    return made


def save_tiny_llama(folder: Path, tokenizer: Any) -> Path:
    """Two layers, 32 wide, with grouped queries, and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.15, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
