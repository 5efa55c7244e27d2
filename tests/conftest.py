"""Shared by all tests: one thread per process, repeatable random numbers, nothing written into the checkout.

And a tiny pretrained model, tiny files and a recipe for them: everything offline, in pytest's temporary folders.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import hypothesis
import hypothesis.configuration
import pytest
import torch
import yaml

if TYPE_CHECKING:
    from structune.finetune.recipe import Recipe

torch.set_num_threads(1)

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "structune-hypothesis")
hypothesis.settings.register_profile("structune", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("structune")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


GOOD = ["good", "great", "fine", "lovely", "superb"]
BAD = ["bad", "awful", "poor", "dull", "weak"]
FILLER = ["the", "film", "was", "a", "story", "with", "actors", "and", "music", "end"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of telling words with some filler between them, and their labels in turn."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = ("negative", "positive")[number % 2]
        words = [rng.choice(GOOD if label == "positive" else BAD) for _ in range(4)]
        words += [rng.choice(FILLER) for _ in range(rng.randint(1, 4))]
        rng.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, without a classification head, with a WordPiece tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = {word: number for number, word in enumerate(SPECIAL + FILLER + GOOD + BAD)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """80 sentences as CSV with the columns text and label."""
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in sentences(80)), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tiny_model: Path, reviews: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes for the tiny model and file: `recipe("lora", max_steps=4)`; keywords go to the train section."""
    from structune.finetune.recipe import Recipe

    def make(method: str | dict[str, Any] = "lora", output: str = "run", **train: Any) -> Recipe:
        settings = {"max_steps": 6, "batch_size": 8, "log_steps": 2, "scheduler": "onecycle", "device": "cpu"} | train
        return Recipe.parse(
            {
                "name": "tiny",
                "output": str(tmp_path / output),
                "model": {"name": str(tiny_model)},
                "data": {"train": str(reviews), "evaluation_examples": 20},
                "method": method,
                "train": settings,
            }
        )

    return make


@pytest.fixture
def recipe_file(recipe: Callable[..., Recipe], tmp_path: Path) -> Path:
    """The tiny recipe as a YAML file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return path
