"""Adapters to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification


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
