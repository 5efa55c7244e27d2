"""A task names the class of trainer beneath the run's own: what is its own there, and what stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from structune.finetune.check import check
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train
from structune.tasks import registry
from structune.tasks.task import Base, Beneath
from structune.testing.tasks import stopped_after

from ..tasks.toy import WordCount


class Arguments(TrainingArguments):
    """Another class of arguments."""


class Others(Trainer):
    """Does what TRL's trainers do: a loss, cards, reports, evaluations and precision of its own."""

    seen: ClassVar[list[str]] = []
    factor = 1.0

    def __init__(self, *arguments: Any, reward: float = 1.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reward = reward
        self.seen.append(f"made with {type(self.args).__name__}, {len(self.train_dataset)} examples")  # type: ignore[arg-type]
        for parameter in self.model.parameters():  # type: ignore[union-attr]
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        self._send_telemetry()

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        self.seen.append("loss")
        number, _hidden = model(inputs["letters"])
        return self.reward * (number - inputs["labels"]).square().mean()

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        self.seen.append("step")
        return super().training_step(*arguments, **options)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        super().log(logs | {"reward": float("nan")}, *arguments, **options)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        self.create_model_card()
        super()._save_checkpoint(*arguments, **options)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        raise AssertionError("a card in the folder of checkpoints")

    def _send_telemetry(self) -> None:
        raise AssertionError("a report to somebody")

    def evaluate(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("an evaluation that is not the task's")

    def prediction_step(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("outputs that are not the task's")

    def _get_eval_sampler(self, *_: Any) -> Any:
        raise AssertionError("an order of its own")


class Counting(WordCount):
    """The toy on that trainer."""

    own_loss: bool = False
    reward: float = 1.0

    def trainer(self, base: Base, data: Any) -> Beneath:
        return Beneath(
            Others,
            arguments=Arguments,
            settings={"logging_first_step": True},
            options={"reward": self.reward},
            examples=lambda encoded: encoded[:3],
            own_loss=self.own_loss,
        )


class Plain(WordCount):
    """The toy under another name."""

    name: Literal["plain-words"] = "plain-words"  # type: ignore[assignment]


Make = Callable[..., Recipe]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(registry.TASKS, "_registered", {})
    registry.register(Counting)
    registry.register(Plain)
    Others.seen.clear()
    rows = tmp_path / "rows.jsonl"
    sentences = [" ".join(["bird"] * (n % 9 + 1) + [f"w{n}"]) for n in range(40)]
    rows.write_text("".join(json.dumps({"sentence": sentence}) + "\n" for sentence in sentences))

    def recipe(task: Any, folder: str, **settings: Any) -> Recipe:
        return Recipe.parse(
            {
                "task": task,
                "output": str(tmp_path / folder),
                "model": {"name": "reader"},
                "data": {"train": str(rows), "evaluation_examples": 10},
                "method": {"name": "c3a", "block_size": 8},
                "train": {"max_steps": 4, "batch_size": 8, "eval_steps": 2, "device": "cpu", **settings},
            }
        )

    return recipe


def trained(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def test_the_loss_of_the_task_gives_the_bits_that_it_gives_without(make: Make) -> None:
    """Arguments, examples and options reach the class; its loss, evaluations, precision and cards do not matter."""
    plain, ours = train(make("plain-words", "plain")), train(make("word-count", "ours"))
    for name, tensor in trained(plain).items():
        assert tensor.abs().max() > 0
        assert torch.equal(trained(ours)[name], tensor)
    assert Others.seen == ["made with Arguments, 3 examples", *["step"] * 4]
    assert plain.metrics()["eval_rmse"] == ours.metrics()["eval_rmse"]
    assert [entry["reward"] for entry in ours.history() if "loss" in entry] == [None, None]  # the first step, the last


def test_the_loss_may_be_the_classes_own(make: Make) -> None:
    """Alone and in parts that are accumulated, as if it were the task's; twice the loss is twice the loss."""
    own = {"name": "word-count", "own_loss": True}
    plain, ours = train(make("plain-words", "plain")), train(make(own, "ours"))
    assert Others.seen.count("loss") == 4
    for name, tensor in trained(plain).items():
        torch.testing.assert_close(trained(ours)[name], tensor)
    twice = train(make({**own, "reward": 2.0}, "twice"))
    assert twice.history()[0]["loss"] == pytest.approx(2 * ours.history()[0]["loss"], rel=1e-5)
    parts = train(make(own, "parts", batch_size=4, gradient_accumulation=2))
    assert parts.history()[0]["grad_norm"] == pytest.approx(ours.history()[0]["grad_norm"], rel=1e-4)


def test_it_goes_on_bit_for_bit_and_is_checked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"name": "word-count", "own_loss": True}
    straight = train(make(own, "straight"))
    stopped_after(2, make(own, "stopped"), monkeypatch)
    resumed = train(make(own, "stopped"), resume=True)
    assert all(torch.equal(trained(resumed)[name], tensor) for name, tensor in trained(straight).items())
    assert check(make(own, "checked")).steps == 4
