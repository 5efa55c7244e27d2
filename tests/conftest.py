"""Shared by all tests: one thread per process, repeatable random numbers, nothing written into the checkout.

And a tiny pretrained model, tiny files and a recipe for them: everything offline, in pytest's temporary folders.
"""

from __future__ import annotations

import gc
import io
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import hypothesis
import hypothesis.configuration
import pytest
import torch
import yaml

if TYPE_CHECKING:
    from rich.console import Console

    from structune.finetune.recipe.recipe import Recipe

torch.set_num_threads(1)

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "structune-hypothesis")
hypothesis.settings.register_profile("structune", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("structune")


def pytest_collection_finish() -> None:
    """What every run would pay for again: looking for garbage in all modules and tests, and drawing its curve."""
    gc.collect()
    gc.freeze()
    if training := sys.modules.get("structune.finetune.training"):
        vars(training)["draw_curve"] = drawn_once(vars(training)["draw_curve"])


def drawn_once(draw: Callable[..., None]) -> Callable[..., None]:
    """`draw_curve`, that draws one curve of each kind and copies it for the others."""
    drawn: dict[Any, bytes] = {}

    def draw_or_copy(
        history: Sequence[dict[str, Any]], metric: Any, title: str, path: Path, chosen: int | None = None
    ) -> None:
        losses = [entry["loss"] for entry in history if "loss" in entry]
        scores = [entry[f"eval_{metric.key}"] for entry in history if f"eval_{metric.key}" in entry]
        counts = tuple(min(len(numbers), 2) for numbers in (losses, scores))
        kind = (metric, title, counts, all(map(math.isfinite, losses + scores)), chosen is None)
        if kind in drawn:
            path.write_bytes(drawn[kind])
        else:
            draw(history, metric, title, path, chosen)
            drawn[kind] = path.read_bytes()

    return draw_or_copy


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
    from structune.finetune.recipe.recipe import Recipe

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


@pytest.fixture
def screen() -> Console:
    """A console whose text a test can read: `screen.file.getvalue()`."""
    from rich.console import Console

    return Console(file=io.StringIO(), width=80)
