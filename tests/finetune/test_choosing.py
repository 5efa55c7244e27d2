"""Early stopping and the best checkpoint: what is chosen and kept, and that stopping and resuming changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from structune.errors import UserError
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.trainer.choosing import Best, Choosing, best, without_gain
from structune.finetune.training import train
from structune.tasks.task import Metric
from structune.tasks.text_classification import TextClassification

MakeRecipe = Callable[..., Recipe]
MORE, LESS = Metric("score", "score"), Metric("score", "error", greater_is_better=False)


def history(*values: float) -> list[dict[str, Any]]:
    """A log with an evaluation every second step, and other entries between."""
    entries: list[dict[str, Any]] = []
    for number, value in enumerate(values, start=1):
        entries += [{"step": 2 * number, "loss": 1.0}, {"step": 2 * number, "eval_loss": 1.0, "eval_score": value}]
    return entries


def test_the_first_of_the_best_is_chosen_in_the_direction_of_the_metric() -> None:
    assert best([], MORE) is None
    assert best(history(0.1, 0.7, 0.7, 0.3), MORE) == Best(4, 0.7)
    assert best(history(0.9, 0.2, 0.4, 0.2), LESS) == Best(4, 0.2)


@pytest.mark.parametrize(
    ("values", "metric", "minimum_gain", "count"),
    [
        ([], MORE, 0.0, 0),
        ([0.5], MORE, 0.0, 0),
        ([0.5, 0.5, 0.4], MORE, 0.0, 2),
        ([0.5, 0.4, 0.6], MORE, 0.0, 0),
        ([0.5, 0.6, 0.55], LESS, 0.0, 2),
        ([0.5, 0.4], LESS, 0.0, 0),
        ([0.50, 0.52, 0.54, 0.56], MORE, 0.05, 0),  # 0.56 is 0.06 above 0.50
        ([0.50, 0.52, 0.54], MORE, 0.05, 2),
        ([0.5, 0.1, 0.51], MORE, 0.05, 2),  # a loss is no gain however large
    ],
)
def test_gains_are_counted_from_the_last_gain(
    values: Sequence[float], metric: Metric, minimum_gain: float, count: int
) -> None:
    assert without_gain(history(*values), metric, minimum_gain) == count


def scored(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Let the evaluations of a run, one every second step, have these scores."""
    states: list[TrainerState] = []

    def scores(self: TextClassification, outputs: Any, labels: Any, targets: Any) -> dict[str, float]:
        return {"accuracy": accuracies[states[-1].global_step // 2 - 1], "f1": 0.0, "matthews": 0.0}

    def remember(self: StopOnInterrupt, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        states.append(state)

    monkeypatch.setattr(TextClassification, "scores", scores)
    monkeypatch.setattr(StopOnInterrupt, "on_train_begin", remember)


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break off while step `step` + 1 is under way, as a killed process would: nothing more is saved."""

    def fail(
        self: StopOnInterrupt, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == step:
            raise RuntimeError("power cut")

    monkeypatch.setattr(StopOnInterrupt, "on_step_begin", fail)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


CHOOSE = {"max_steps": 12, "eval_steps": 2, "save_steps": 3, "learning_rate": 0.01, "head_learning_rate": 0.01}


HYDRA = {"name": "hydra", "structure": "toeplitz", "pool_size": 24}


@pytest.mark.parametrize("method", ["lora", HYDRA])
def test_the_saved_adapter_is_the_best_checkpoint_bit_for_bit(
    method: Any, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is one of PEFT's modules_to_save: it has to come back too, and still count as trained.

    Loaded afresh, the run has the loss that it says.
    """
    with monkeypatch.context() as patch:
        scored(patch, 0.5, 0.8, 0.6, 0.8, 0.7, 0.1)
        run = train(recipe(method, best_checkpoint=True, keep_checkpoints=20, **CHOOSE))
    metrics = run.metrics()
    assert (metrics["steps"], metrics["best_step"], metrics["eval_accuracy"]) == (12, 4, 0.8)
    assert same(weights(run.adapter), weights(run.checkpoints / "checkpoint-4"))
    last = weights(run.checkpoints / "checkpoint-12")
    changed = {name for name, tensor in weights(run.adapter).items() if not torch.equal(tensor, last[name])}
    assert any("classifier" in name for name in changed) and any("query" in name for name in changed)
    assert metrics["trainable_head"] == (32 + 1) * 2 and metrics["trainable_adapter"] > 0
    assert {entry.get("best_step") for entry in run.history()} == {None, 4}
    losses = {entry["step"]: entry["eval_loss"] for entry in run.history() if "eval_loss" in entry}
    assert metrics["eval_loss"] == losses[4] and abs(losses[12] - losses[4]) > 1e-4
    assert evaluate(run.folder).loss == pytest.approx(losses[4], rel=1e-5)
    assert "| steps | 12; these are the weights of step 4, the best |" in (run.adapter / "README.md").read_text()


def test_rotation_keeps_the_best(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.6, 0.7, 0.7, 0.1)
    run = train(recipe("lora", best_checkpoint=True, **CHOOSE))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-12", "checkpoint-4"]


def test_another_score_may_choose(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy grows, the correlation falls after the first evaluation: the one that is named chooses."""
    found = zip((0.5, 0.6, 0.7), (0.3, 0.2, 0.1), strict=True)

    def scores(self: TextClassification, *_: Any) -> dict[str, float]:
        accuracy, matthews = next(found)
        return {"accuracy": accuracy, "f1": 0.5, "matthews": matthews}

    monkeypatch.setattr(TextClassification, "scores", scores)
    settings = CHOOSE | {"max_steps": 6}
    run = train(recipe("lora", best_checkpoint=True, early_stopping=2, metric="matthews", **settings))
    metrics = run.metrics()
    assert (metrics["best_step"], metrics["eval_accuracy"], metrics["eval_matthews"]) == (2, 0.5, 0.3)
    assert metrics["stopped_early"] is False  # after the last step there was nothing left to stop
    with pytest.raises(UserError, match=r"train\.metric = 'bleu': task text-classification has accuracy, f1, matthews"):
        recipe("lora", metric="bleu")


def test_training_stops_early(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.81, 0.82, 0.9, 0.9)
    stopping = {"patience": 2, "minimum_gain": 0.05}
    run = train(recipe("lora", early_stopping=stopping, **CHOOSE))
    metrics = run.metrics()
    assert run.state() == "finished"
    assert (metrics["steps"], metrics["stopped_early"], metrics["eval_accuracy"]) == (8, True, 0.82)
    assert "best_step" not in metrics
    assert [entry["stopped_early"] for entry in run.history() if "stopped_early" in entry] == [True]
    assert "| steps | 8, stopped early |" in (run.adapter / "README.md").read_text()


@pytest.mark.parametrize("step", [5, 7])
def test_killed_and_resumed_it_chooses_the_same(step: int, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.6, 0.7, 0.9, 0.9)
    settings = {"best_checkpoint": True, "early_stopping": 2, "keep_checkpoints": 20, **CHOOSE}
    straight = train(recipe("lora", "straight", **settings))
    assert (straight.metrics()["steps"], straight.metrics()["best_step"]) == (8, 4)
    with monkeypatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe("lora", "killed", **settings))
    resumed = train(recipe("lora", "killed", **settings), resume=True)
    assert same(weights(resumed.adapter), weights(straight.adapter))
    chosen = ("steps", "best_step", "stopped_early", "eval_accuracy", "eval_loss")
    assert [resumed.metrics()[key] for key in chosen] == [straight.metrics()[key] for key in chosen]


def test_the_untrained_model_is_scored_once_and_never_chosen(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.6, 0.7, 0.9, 0.9)  # the last is what the untrained one has
    settings = {"best_checkpoint": True, "early_stopping": 2, "keep_checkpoints": 20, **CHOOSE}
    without = train(recipe("lora", "without", **settings))
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe("lora", "first", evaluate_first=True, **settings))
    run = train(recipe("lora", "first", evaluate_first=True, **settings), resume=True)
    assert [entry["eval_accuracy"] for entry in run.history() if entry["step"] == 0] == [0.9]
    assert (run.metrics()["steps"], run.metrics()["best_step"]) == (8, 4)
    assert same(weights(run.adapter), weights(without.adapter))


def test_killed_after_the_early_stop_it_takes_no_further_step(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.6, 0.7, 0.9, 0.9)
    settings = {"best_checkpoint": True, "early_stopping": 2, **CHOOSE, "save_steps": 2}
    with monkeypatch.context() as patch:
        patch.setattr("structune.finetune.training.save_trained", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(recipe("lora", **settings))
    stopped = Run(Path(recipe("lora").output or ""))
    assert stopped.last_checkpoint() == stopped.checkpoints / "checkpoint-8"
    expected = weights(stopped.checkpoints / "checkpoint-4")
    run = train(recipe("lora", **settings), resume=True)
    assert (run.metrics()["steps"], run.metrics()["best_step"]) == (8, 4)
    assert same(weights(run.adapter), expected)


def test_a_best_checkpoint_that_is_gone_is_told(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, 0.5, 0.8, 0.6, 0.7, 0.7, 0.1)
    settings = {"best_checkpoint": True, **CHOOSE}
    with monkeypatch.context() as patch:
        kill_at(9, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe("lora", **settings))
    run = Run(Path(recipe("lora").output or ""))
    (run.checkpoints / "checkpoint-4").rename(run.folder / "elsewhere")
    with pytest.raises(UserError, match=r"checkpoint-4, the best of the run, is gone; restore it, or start anew"):
        train(recipe("lora", **settings), resume=True)


def test_patience_that_never_ends_is_doubted(recipe: MakeRecipe) -> None:
    with pytest.warns(UserWarning, match=r"train\.early_stopping = 3: there are 3 evaluations in the whole run"):
        train(recipe("lora", early_stopping=3, max_steps=6, eval_steps=2))


def test_recipes_say_it_short_or_long(recipe: MakeRecipe) -> None:
    short = recipe("lora", early_stopping=3)
    assert short.train == recipe("lora", early_stopping={"patience": 3}).train
    assert Recipe.parse(json.loads(json.dumps(short.model_dump(mode="json", exclude_none=True)))).train == short.train
    for wrong, said in ((0, "early_stopping.patience = 0"), (True, "early_stopping = True"), ("3", "early_stopping")):
        with pytest.raises(UserError, match=said):
            recipe("lora", early_stopping=wrong)


def test_choosing_is_off_by_default(recipe: MakeRecipe) -> None:
    metrics = train(recipe("lora", max_steps=2)).metrics()
    assert not {"best_step", "stopped_early"} & metrics.keys()
    assert Choosing(recipe("lora").train, MORE).stopped is False
