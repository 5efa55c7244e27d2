"""Two processes train one run of each task whose model writes or draws; groups of completions they share.

Where no process has the whole model, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train

from ..two_processes import run_by_two
from .chats import questions
from .conftest import picture

WORDS = ["good", "bad", "a film", "the story and music", "end"]


def recipe_of(model: Path, task: dict[str, Any], data: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "task": task,
        "model": {"name": str(model)},
        "data": {"evaluation_examples": 6, **data},
        "method": {"name": "c3a", "block_size": 8},
        "train": {"eval_batch_size": 4, "learning_rate": 0.02, "log_steps": 1, "device": "cpu", **settings},
    }


@pytest.fixture(scope="module")
def launched(
    tiny_llama: Path, tiny_writer: Path, tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which two processes ran, and what they saw: steps with samples, and groups of completions."""
    folder = tmp_path_factory.mktemp("together")
    # 19 examples to train on, eight a step: the last batch has three, which two processes part unevenly
    pairs = [
        {"prompt": f"{WORDS[n % 5]} {n}? ", "chosen": "good" + " yes" * (n % 3), "rejected": "bad"} for n in range(25)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    chats = [{"prompt": question, "completion": answer} for question, answer in questions(25)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    for number in range(9):  # seven to train on, four a step
        (folder / "photos" / "left").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture("left", number)).save(folder / "photos" / "left" / f"{number}.png")
    (folder / "r.py").write_text("def score(completion, row):\n    return sum(map(completion.count, 'aeiou'))\n")

    epoch: dict[str, Any] = {"epochs": 1.0, "batch_size": 8}
    writing = {"name": "instruction", "exact_match": "gsm8k", "generation": {"max_new_tokens": 4}}
    drawing = {"name": "text-to-image", "evaluation_draws": 2, "samples": {"steps": 1, "count": 1, "times": 2}}
    photos = {"train": "photos", "image_size": 16, "evaluation_examples": 2}
    preferring = {"name": "preference", "chat_template": "plain"}
    rewarding = {"name": "reward", "chat_template": "plain", "verifier": "r.py:score", "beta": 0.1}
    rewarding |= {"generations": 4, "max_new_tokens": 5}
    recipes = {
        "instruction": recipe_of(tiny_llama, writing, {"train": "chats.jsonl"}, **epoch),
        "images": recipe_of(tiny_pipeline, drawing, photos, epochs=1.0, batch_size=4),
        "preference": recipe_of(tiny_writer, preferring, {"train": "pairs.jsonl"}, **epoch),
        "reward": recipe_of(tiny_writer, rewarding, {"train": "pairs.jsonl"}, max_steps=2, batch_size=4),
    }
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, "output": name}))
    run_by_two(Path(__file__).with_name("learning_together.py"), *(f"{name}.yaml" for name in recipes), folder=folder)
    return folder, [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in "01"]


@pytest.mark.filterwarnings("ignore::structune.doubt.DataWarning")
@pytest.mark.parametrize(
    ("name", "score"),
    [("instruction", "loss_per_token"), ("images", "denoising_loss"), ("preference", "margin")],
)
def test_two_learn_what_one_does(name: str, score: str, launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = launched
    monkeypatch.chdir(folder)
    one, two = train(Recipe.load(f"{name}.yaml", [f"output={name}-alone"])), Run(folder / name)
    expected, found = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, two))
    assert found.keys() == expected.keys()
    for key, numbers in expected.items():
        assert numbers.abs().max() > 1e-3
        torch.testing.assert_close(found[key], numbers, rtol=1e-5, atol=1e-5)
    assert (one.metrics()["processes"], two.metrics()["processes"]) == (1, 2)
    assert abs(one.metrics()[f"eval_{score}"]) > 0.01
    for ours, theirs in zip(one.history(), two.history(), strict=True):
        for key in ours.keys() & {
            "loss",
            "grad_norm",
            "learning_rate",
            "eval_loss",
            "eval_exact_match",
            f"eval_{score}",
        }:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name", ["instruction", "reward"])
def test_a_spread_model_writes_and_learns_the_same(name: str, launched: Any) -> None:
    """Under FSDP2, where no process has it whole: the same completions, rewards and updates as whole models."""
    folder, _ = launched
    whole, spread = Run(folder / name), Run(folder / f"{name}-spread")
    expected, found = (load_file(run.adapter / "adapter_model.safetensors") for run in (whole, spread))
    assert found.keys() == expected.keys()
    for key, numbers in expected.items():
        assert numbers.abs().max() > 1e-3
        torch.testing.assert_close(found[key], numbers, rtol=1e-5, atol=1e-5)
    scores = [{key: each for key, each in run.metrics().items() if key.startswith("eval_")} for run in (whole, spread)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


def test_samples_are_drawn_and_written_once(launched: Any) -> None:
    folder, (first, second) = launched
    assert first["samples"] == [0, 2]
    assert second["samples"] == []
    assert Image.open(folder / "images" / "samples.png").info["steps"] == "0 2"


def test_a_group_is_drawn_by_both_and_compared_as_one(launched: Any) -> None:
    """Each draws two of a prompt's four completions, others than the other does; rewards are compared over all four."""
    folder, (first, second) = launched
    assert len(first["groups"]) == len(second["groups"]) == 2
    spread = 0.0
    for one, other in zip(first["groups"], second["groups"], strict=True):
        assert one["prompts"] == other["prompts"] == [one["prompts"][0]] * 2
        assert len({str([t for t in row if t]) for row in one["completions"] + other["completions"]}) > 2
        advantages = one["advantages"] + other["advantages"]
        assert sum(advantages) == pytest.approx(0, abs=1e-5)
        spread += sum(map(abs, advantages))
    assert spread > 1
    metrics = json.loads((folder / "reward" / "metrics.json").read_text())
    assert metrics["steps"] == metrics["processes"] == 2
