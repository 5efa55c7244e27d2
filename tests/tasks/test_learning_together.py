"""Two processes train one run of preferences, and one of rewards, whose groups they share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from structune.finetune.recipe import Recipe
from structune.finetune.training import train

from ..two_processes import run_by_two

WORDS = ["good", "bad", "a film", "the story and music", "end"]


def recipe_of(model: Path, task: dict[str, Any], data: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "task": {"chat_template": "plain", **task},
        "model": {"name": str(model)},
        "data": {**data, "evaluation_examples": 6},
        "method": {"name": "c3a", "block_size": 8},
        "train": {"eval_batch_size": 4, "learning_rate": 0.02, "log_steps": 1, "device": "cpu", **settings},
    }


@pytest.fixture(scope="module")
def launched(tiny_writer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    """The folder in which two processes ran, and what they saw in each step of the run with rewards."""
    folder = tmp_path_factory.mktemp("together")
    pairs = [
        {"prompt": f"{WORDS[n % 5]} {n}? ", "chosen": "good" + " yes" * (n % 3), "rejected": "bad"} for n in range(25)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "r.py").write_text("def score(completion, row):\n    return sum(map(completion.count, 'aeiou'))\n")
    # 19 pairs, eight a step: the last batch has three, which two processes part unevenly
    preference = recipe_of(tiny_writer, {"name": "preference"}, {"train": "pairs.jsonl"}, epochs=1.0, batch_size=8)
    own = {"name": "reward", "verifier": "r.py:score", "generations": 4, "max_new_tokens": 5, "beta": 0.1}
    reward = recipe_of(tiny_writer, own, {"train": "pairs.jsonl"}, max_steps=2, batch_size=4)
    for name, recipe in (("preference", preference), ("reward", reward)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, "output": name}))
    script = Path(__file__).with_name("learning_together.py")
    run_by_two(script, "preference.yaml", "reward.yaml", folder=folder)
    return folder, [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in "01"]


def test_preferences_are_learned_as_by_one_process(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = launched
    monkeypatch.chdir(folder)
    alone = train(Recipe.load("preference.yaml", ["output=alone"]))
    together, one = (
        load_file(folder / run / "adapter" / "adapter_model.safetensors") for run in ("preference", "alone")
    )
    assert together.keys() == one.keys()
    for name, expected in one.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-3, atol=1e-5)
    metrics = json.loads((folder / "preference" / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["eval_margin"] == pytest.approx(alone.metrics()["eval_margin"], rel=1e-3)
    assert abs(metrics["eval_margin"]) > 0.01


def test_a_group_is_drawn_by_both_and_compared_as_one(launched: Any) -> None:
    """Each draws two of a prompt's four completions, others than the other does; rewards are compared over all four."""
    folder, (first, second) = launched
    assert len(first) == len(second) == 2
    spread = 0.0
    for one, other in zip(first, second, strict=True):
        assert one["prompts"] == other["prompts"] == [one["prompts"][0]] * 2
        assert len({str([t for t in row if t]) for row in one["completions"] + other["completions"]}) > 2
        advantages = one["advantages"] + other["advantages"]
        assert sum(advantages) == pytest.approx(0, abs=1e-5)
        spread += sum(map(abs, advantages))
    assert spread > 1
    metrics = json.loads((folder / "reward" / "metrics.json").read_text())
    assert metrics["steps"] == metrics["processes"] == 2
