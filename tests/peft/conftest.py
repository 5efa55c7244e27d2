"""Tiny models, made from configurations alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel


class MLP(nn.Module):
    """Two linear layers of sizes that no block size divides."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(10, 14)
        self.lin1 = nn.Linear(14, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(…, 10) to (…, 6)."""
        return self.lin1(torch.tanh(self.lin0(x)))


def make_mlp() -> nn.Module:
    torch.manual_seed(0)
    return MLP().eval()


def make_bert() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=50, num_labels=3
    )
    return BertForSequenceClassification(config).eval()


def make_gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=32, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def mlp() -> Callable[[], nn.Module]:
    return make_mlp


@pytest.fixture
def bert() -> Callable[[], nn.Module]:
    return make_bert


@pytest.fixture
def gpt2() -> Callable[[], nn.Module]:
    return make_gpt2


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 50, (2, 7))


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Give every trainable number a random value, as training would."""

    def randomise(model: nn.Module, std: float = 0.3, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        return model

    return randomise
