"""Studies over tasks whose models write: rewards, and scores that are better when less, on parts that are files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from structune.finetune.run_folder.run import Run
from structune.study import engine as module
from structune.study.engine import run_study
from structune.study.report.summary_table import table
from structune.study.results.counted import summaries
from structune.study.results.files import Results
from structune.study.study_file import Study

from ..tasks.chats import chat_tokenizer, questions, save_tiny_llama
from .in_turn import InTurn

pytest.importorskip("trl", minversion="1.16")

TASKS: dict[str, Any] = {
    "answers": {
        "task": {"name": "instruction", "samples": 0, "chat_template": "chatml"},
        "data": {"train": "rows.jsonl", "evaluation": "more.jsonl", "prompt": "question", "completion": "answer",
                 "train_examples": 40, "max_length": 96},
        "validation_examples": 10,
        "train": {"max_steps": 6, "batch_size": 8, "eval_batch_size": 5, "device": "cpu", "evaluate_first": True},
    },
    "sums": {
        "task": {"name": "reward", "verifier": {"name": "regular-expression", "pattern": "[a-m]"}, "generations": 4,
                 "max_new_tokens": 2, "chat_template": "plain", "evaluation": "sampled"},
        "data": {"train": "rows.jsonl", "prompt": "question", "answer": "answer", "evaluation_examples": 20},
        "validation_examples": 10,
        "train": {"max_steps": 2, "batch_size": 8, "eval_batch_size": 10, "device": "cpu", "scheduler": "constant",
                  "warmup": 0, "evaluate_first": True},
    },
}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(module, "Workers", InTurn)
    monkeypatch.chdir(tmp_path)
    save_tiny_llama(tmp_path / "writer", chat_tokenizer())
    pairs = [{"question": question, "answer": answer} for question, answer in questions(70)]
    for name, rows in (("rows", pairs[:50]), ("more", pairs[50:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "name": "tiny",
        "seeds": [0, 1],
        "rates": [1e-3, 3e-2],
        "further_rates": 0,
        "model": {"name": "writer"},
        "tasks": TASKS,
        "methods": [{"label": "LoRA", "method": {"name": "lora", "rank": 2}}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return Study.load(tmp_path / "tiny.yaml")


def test_the_least_loss_is_chosen(plan: Study, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", task="answers")
    found = results.all()
    losses = {r["rate"]: r["validation"]["loss_per_token"] for r in found if r["seed"] == 0}
    (row,) = summaries(plan, results)
    assert losses[3e-2] < losses[1e-3]  # it learns
    assert row["rate"] == 3e-2
    assert {r["rate"] for r in found if r["seed"] == 1} == {3e-2}
    for result in found:
        assert (result["train_examples"], result["eval_examples"]) == (30, 10)
        assert result["validation"]["loss"] == pytest.approx(result["validation"]["loss_per_token"], rel=1e-4)
        assert result["untrained"]["loss_per_token"] > result["validation"]["loss_per_token"]
        if result["test"]:
            assert result["test"]["examples"] == 20
            assert result["test"]["perplexity"] == pytest.approx(math.exp(result["test"]["loss_per_token"]))
    recipe = Run(tmp_path / "work" / "runs" / "answers" / "LoRA-lr=0.03-seed=1").recipe()
    assert (recipe.task.chat_template, recipe.data.max_length) == ("chatml", 96)  # type: ignore[attr-defined]
    text = table(plan, results)
    assert "**answers**, loss per token on the test part:" in text
    assert f"Before training: {row['untrained']:.3f} on the validation part." in text


def test_rewards_are_searched_too(plan: Study, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run_study(plan, results, tmp_path / "work", task="sums")
    rewards = {r["rate"]: r["validation"]["reward"] for r in results.all() if r["seed"] == 0}
    (row,) = summaries(plan, results)
    assert row["rate"] == max(rewards, key=lambda rate: (rewards[rate], -rate))
    assert all(0 < each < 1 for each in (row["untrained"], *row["test"], *rewards.values()))
    kept = (tmp_path / "work" / "data" / "sums" / "test.jsonl").read_text().splitlines()
    assert len(kept) == 20
    assert json.loads(kept[0]).keys() == {"question", "answer"}
