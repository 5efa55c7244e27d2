"""Tiny pretrained models and pipelines, and tiny images of two classes to train them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from structune.finetune.recipe.recipe import Recipe

from .chats import chat_tokenizer, save_tiny_llama
from .clips import save_tiny_clip


def picture(bright: str, seed: int, height: int = 20, width: int = 28) -> np.ndarray[Any, Any]:
    """Noise that is brighter on the left or on the right."""
    noise = np.random.default_rng(seed).integers(0, 90, (height, width, 3))
    half = slice(0, width // 2) if bright == "left" else slice(width // 2, width)
    noise[:, half] += 150
    return noise.astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 2 layers, 16 wide, that reads 16 × 16 pixels in 16 patches."""
    from transformers import ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("tiny-vit")
    torch.manual_seed(0)
    ViTModel(vit_config(), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vit_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a head of six classes, none of them ours."""
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-vit-classifier")
    torch.manual_seed(0)
    ViTForImageClassification(vit_config(num_labels=6)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def vit_config(**options: Any) -> Any:
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        initializer_range=0.2, **options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_convnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EfficientNet of two blocks with batch normalisation, whose head has seven classes."""
    from transformers import EfficientNetConfig, EfficientNetForImageClassification, EfficientNetImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-convnet")
    torch.manual_seed(0)
    config = EfficientNetConfig(
        image_size=16, in_channels=[32, 8], out_channels=[8, 16], kernel_sizes=[3, 3], strides=[1, 2],
        num_block_repeats=[1, 1], expand_ratios=[1, 2], depthwise_padding=[], width_coefficient=1.0,
        depth_coefficient=1.0, hidden_dim=1280, num_labels=7, dropout_rate=0.0, drop_connect_rate=0.0,
        initializer_range=0.3,
    )  # fmt: skip
    EfficientNetForImageClassification(config).save_pretrained(folder)
    EfficientNetImageProcessorPil(size={"height": 16, "width": 16}, include_top=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers, 32 wide, that reads and writes letters, digits and some signs, without a chat template."""
    pytest.importorskip("trl", minversion="1.16")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-writer")
    letters = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789 #:?.+=\n"]
    known = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(known), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=128, initializer_range=0.2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers, 32 wide, with a byte-level tokenizer and the chat template of SmolLM2."""
    pytest.importorskip("trl", minversion="1.16")
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"), chat_tokenizer())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 images in a folder for each of two classes."""
    folder = tmp_path / "photos"
    for number in range(40):
        side = ("left", "right")[number % 2]
        (folder / side).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(side, number)).save(folder / side / f"{number:02}.png")
    return folder


@pytest.fixture
def image_recipe(tiny_vit: Path, photos: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes for the tiny ViT and images; `model`, `data` and `task` are sections, other keywords go to `train`."""

    def make(method: str | dict[str, Any] = "lora", output: str = "run", **given: Any) -> Recipe:
        model, data, task = (given.pop(key, {}) for key in ("model", "data", "task"))
        settings = {"max_steps": 6, "batch_size": 8, "log_steps": 2, "device": "cpu"} | given
        return Recipe.parse(
            {
                "name": "tiny",
                "output": str(tmp_path / output),
                "task": {"name": "image-classification"} | task,
                "model": {"name": str(tiny_vit)} | model,
                "data": {"train": str(photos), "evaluation_examples": 10} | data,
                "method": method,
                "train": settings,
            }
        )

    return make


@pytest.fixture(scope="session")
def tiny_pipeline(saved: Callable[[str], Path]) -> Path:
    """A pipeline of Stable Diffusion: a UNet of 8 and 16 channels, a VAE that keeps the size, a CLIP."""
    return saved("stable_diffusion")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP that says how well images go with texts, with no meaning."""
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small pipeline by its name."""
    from .. import pipelines

    folder = tmp_path_factory.mktemp("pipelines")

    def save(name: str) -> Path:
        if not (folder / name).is_dir():
            getattr(pipelines, name)().save_pretrained(folder / name)
        return folder / name

    return save
