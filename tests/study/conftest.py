"""A tiny pretrained model, a tiny file and a recipe for them: everything offline, in pytest's temporary folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "film", *"0123456789"]
WIDTH = 32


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, with a WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe_file(tiny_model: Path, tmp_path: Path) -> Path:
    """A recipe whose own method is C3A with blocks of 8, at learning rates of its own."""
    rows = "".join(f"a {word} film {n},{word}\n" for n in range(40) for word in ("good", "bad"))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    content = {
        "model": {"name": str(tiny_model)},
        "data": {"train": str(tmp_path / "films.csv"), "evaluation_examples": 20},
        "method": {"name": "c3a", "block_size": 8},
        "train": {"max_steps": 4, "batch_size": 8, "log_steps": 1, "learning_rate": 0.03, "device": "cpu"},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def content(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A study of films: two ranks of LoRA and a pool, two rates, two seeds, two steps each."""
    rows = "".join(f"a {word} film {n},{word}\n" for n in range(60) for word in ("good", "bad"))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    return {
        "name": "tiny",
        "seeds": [3, 4],
        "rates": [0.01, 0.04],
        "further_rates": 0,
        "model": {"name": str(tiny_model)},
        "tasks": {
            "films": {
                "data": {"train": str(tmp_path / "films.csv"), "evaluation_examples": 40},
                "validation_examples": 20,
                "train": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
            }
        },
        "methods": [
            {"label": "LoRA r={rank}", "method": {"name": "lora", "rank": [1, 2]}},
            {"label": "pool", "method": {"name": "hydra", "pool_size": 13, "pool_map": "signed"}},
        ],
    }


@pytest.fixture
def save_adapter(tiny_model: Path, tmp_path: Path) -> Callable[..., tuple[Path, nn.Module]]:
    """Adapt the tiny model with a configuration, fill in random numbers and save: (adapter folder, live model)."""

    def save(config: peft.PeftConfig, name: str = "saved") -> tuple[Path, nn.Module]:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model)
        model = peft.get_peft_model(base, config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "structune_" in key or "lora_" in key:
                    parameter.copy_(torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name)
        return tmp_path / name, model

    return save


@pytest.fixture
def screen() -> Console:
    """A console whose text a test can read: `screen.file.getvalue()`."""
    return Console(file=io.StringIO(), width=80)
