"""Every task of the package, and one of another package, through the suite."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from structune.tasks import registry
from structune.testing.tasks import TaskConformance

from .chats import questions
from .conftest import picture
from .toy import WordCount

WORDS = ["good", "great", "bad", "awful", "film", "story", "the", "and", "music"]


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    return list({" ".join(rng.choices(WORDS, k=rng.randint(2, 9))): None for _ in range(4 * count)})[:count]


def rows_of(folder: Path, row: Callable[[str], dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row(text)) + "\n" for text in texts(60)))
    return str(path)


def sentiment(text: str) -> str:
    return "praise" if "good" in text or "great" in text else "blame"


def classes(folder: Path) -> dict[str, Any]:
    return {"train": rows_of(folder, lambda text: {"text": text, "label": sentiment(text)})}


def numbers(folder: Path) -> dict[str, Any]:
    return {"train": rows_of(folder, lambda text: {"text": text, "label": len(text) / 7})}


def label_lists(folder: Path) -> dict[str, Any]:
    return {
        "train": rows_of(
            folder, lambda text: {"text": text, "label": [w for w in ("film", "music", "bad") if w in text]}
        )
    }


def tags(folder: Path) -> dict[str, Any]:
    marks = {"good": "B-praise", "great": "I-praise", "bad": "B-blame", "awful": "I-blame"}
    return {
        "train": rows_of(
            folder, lambda text: {"tokens": text.split(), "tags": [marks.get(word, "O") for word in text.split()]}
        )
    }


def chats(folder: Path) -> dict[str, Any]:
    rows = [{"prompt": question, "completion": answer} for question, answer in questions(60)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"train": str(folder / "chats.jsonl")}


def pairs(folder: Path) -> dict[str, Any]:
    return {"train": rows_of(folder, lambda text: {"prompt": text, "chosen": text[:3], "rejected": f"no {text[-4:]}"})}


def prompts(folder: Path) -> dict[str, Any]:
    return {"train": rows_of(folder, lambda text: {"prompt": f"{text}? ", "answer": text[0]})}


def images(folder: Path) -> dict[str, Any]:
    for number in range(56):
        side = ("left", "right")[number % 2]
        (folder / "photos" / side).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(side, number)).save(folder / "photos" / side / f"{number:02}.png")
    return {"train": str(folder / "photos")}


TASKS: dict[str, tuple[str, Callable[[Path], dict[str, Any]], dict[str, Any]]] = {
    "text-classification": ("tiny_model", classes, {"class_weights": "balanced", "label_smoothing": 0.1}),
    "text-regression": ("tiny_model", numbers, {}),
    "multi-label-classification": ("tiny_model", label_lists, {}),
    "token-classification": ("tiny_model", tags, {}),
    "image-classification": ("tiny_vit", images, {"augment": {"flip": True, "crop": 3}}),
    "image-classification, matched": ("tiny_vit_classifier", images, {"head": "match", "rematch": "epoch"}),
    "text-to-image": ("tiny_pipeline", images, {"evaluation_draws": 2, "samples": {"steps": 2, "count": 2}}),
    "instruction": (
        "tiny_llama",
        chats,
        {"exact_match": "gsm8k", "generation": {"max_new_tokens": 6}, "packing": True},
    ),
    "preference": ("tiny_writer", pairs, {"beta": 0.5, "chat_template": "plain"}),
    "reward": (
        "tiny_writer",
        prompts,
        {
            "verifier": {"name": "exact-match", "extract": "([a-z])"},
            "generations": 4,
            "max_new_tokens": 5,
            "beta": 0.1,
            "chat_template": "plain",
        },
    ),
}
"""For each task its tiny model, its tiny data and options: a new task has a line here. After a comma: in which way."""


NO_DROPOUT = ("text-to-image",)
"""Tasks whose models read weights as a whole; the noise that they draw is another in each step as it is."""


def content_of(task: Any, model: str, data: dict[str, Any], dropout: float = 0.1) -> dict[str, Any]:
    return {
        "task": task,
        "model": {"name": model},
        "data": {**data, "evaluation_examples": 14},
        "method": {"name": "c3a", "block_size": 8, "dropout": dropout},
        "train": {"batch_size": 8, "eval_batch_size": 4, "learning_rate": 0.02, "device": "cpu"},
    }


def test_every_task_has_its_line() -> None:
    assert list(registry.PLACES) == sorted({name.partition(",")[0] for name in TASKS})


@pytest.mark.filterwarnings("ignore::structune.doubt.DataWarning")
@pytest.mark.parametrize("name", TASKS, scope="class")
class TestTasks(TaskConformance):
    """The tasks of the package pass the suite."""

    @pytest.fixture(scope="class")
    @classmethod
    def content(
        cls, name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> dict[str, Any]:
        model, data, options = TASKS[name]
        folder = tmp_path_factory.mktemp("data")
        task = {"name": name.partition(",")[0], **options}
        dropout = 0.0 if name in NO_DROPOUT else 0.1
        return content_of(task, str(request.getfixturevalue(model)), data(folder), dropout)


class TestOutside(TaskConformance):
    """So does a task with a model, a loss and outputs of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
        data = rows_of(tmp_path_factory.mktemp("data"), lambda text: {"sentence": text})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry.TASKS, "_registered", {})
            registry.register(WordCount)
            yield content_of("word-count", "reader", {"train": data})
