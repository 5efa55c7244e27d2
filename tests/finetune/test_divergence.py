"""Numbers that run away: training stops at once, says when and at which rate, and saves nothing as if it were done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from structune import cli
from structune.errors import Diverged, UserError
from structune.files import write_json
from structune.finetune import training
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.trainer import curve
from structune.finetune.training import train

MakeRecipe = Callable[..., Recipe]
HUGE: dict[str, Any] = {
    "learning_rate": 1e6, "weight_decay": 1e30, "head_learning_rate": 0.001, "scheduler": "constant", "warmup": 0.0
}  # fmt: skip


def poison(step: int, value: float, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `step` on, the loss or a number of a gradient is `value`."""
    original = transformers.Trainer.training_step

    def training_step(self: transformers.Trainer, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = original(self, *arguments, **options)
        if self.state.global_step + 1 < step:
            return loss
        if what == "loss":
            return loss * value
        gradient = next(parameter.grad for parameter in self.model.parameters() if parameter.grad is not None)
        gradient.view(-1)[:2] = value
        return loss

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)


def check_unfinished(run: Run) -> None:
    assert run.state() == "unfinished"
    assert not run.adapter.exists()
    for line in run.log_file.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_too_high_a_rate_stops_at_once(recipe: MakeRecipe) -> None:
    settings = recipe("lora", **HUGE, max_steps=40, save_steps=100)
    message = r"step 2 of 40: the training loss is (nan|inf) \(learning rate 1e\+06, head 0\.001\)\. Try lower rates"
    with pytest.raises(Diverged, match=message) as caught:
        train(settings)
    assert "train.learning_rate=0.001" in str(caught.value)
    check_unfinished(Run(Path(settings.output or "")))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("what", "word"), [("loss", "the training loss"), ("gradient", "the gradient's norm")])
def test_loss_and_gradient_are_looked_at(
    what: str, word: str, value: float, accumulation: int, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe("lora", max_steps=6, save_steps=2, gradient_accumulation=accumulation, max_grad_norm=0.0)
    poison(5, value, what, monkeypatch)
    with pytest.raises(Diverged, match=rf"step 5 of 6: {word} is {value} .* No adapter was saved") as caught:
        train(settings)
    run = Run(Path(settings.output or ""))
    check_unfinished(run)
    assert str(run.last_checkpoint()) in str(caught.value)
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-2"  # 4 led to the failure


def test_a_gradient_too_large_to_be_measured(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number is finite, their norm is not."""
    poison(3, 3e38, "gradient", monkeypatch)
    with pytest.raises(Diverged, match="step 3 of 6: the gradient's norm is inf"):
        train(recipe("lora"))


def test_the_only_checkpoint_is_kept(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(3, torch.nan, "loss", monkeypatch)
    with pytest.raises(Diverged):
        train(recipe("lora", save_steps=2))
    run = Run(Path(recipe().output or ""))
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-2"


def test_numbers_that_only_the_evaluation_shows(recipe: MakeRecipe) -> None:
    settings = recipe("lora", **HUGE, max_steps=1)
    with pytest.raises(Diverged, match=r"step 1 of 1: (eval_loss is nan|numbers of .* are not finite)"):
        train(settings)
    run = Run(Path(settings.output or ""))
    check_unfinished(run)
    assert run.last_checkpoint() is None


def test_before_the_first_update_it_is_the_base_model(recipe: MakeRecipe, tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    settings = recipe()
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"name": str(broken)})})
    with pytest.raises(Diverged, match="step 1 of 6: .* look for numbers that are not finite in the base model"):
        train(settings)


def test_resuming_says_why_it_stopped_and_rates_do_not_change_on_the_way(
    recipe: MakeRecipe, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", str(recipe_file), "--set", "train.save_steps=2"]
    with monkeypatch.context() as patch:
        poison(5, torch.nan, "loss", patch)
        first = CliRunner().invoke(cli.app, command)
        again = CliRunner().invoke(cli.app, [*command, "--resume"])
    assert (first.exit_code, again.exit_code) == (3, 3)
    assert "This run stopped before: step 5 of 6: the training loss is nan" in again.output
    lower = CliRunner().invoke(cli.app, [*command, "--resume", "--set", "train.learning_rate=1e-5"])
    assert lower.exit_code == 2
    assert "Rates cannot change on the way" in lower.output
    assert "--overwrite" in lower.output
    healed = CliRunner().invoke(cli.app, [*command, "--resume"])  # the cause has gone
    assert healed.exit_code == 0
    assert "resuming from" in healed.output


def test_an_infinite_rate_is_refused(recipe: MakeRecipe) -> None:
    for value in (float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"train\.learning_rate"):
            recipe(learning_rate=value)


def test_evaluating_broken_numbers(recipe: MakeRecipe) -> None:
    run = train(recipe("lora", max_steps=2))
    weights = run.adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    for tensor in tensors.values():
        tensor.fill_(1e30)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="its outputs on these examples are not finite"):
        evaluate(run.folder)
    assert not run.evaluation_file.exists()


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_fewer_steps_than_are_logged_still_have_a_loss_and_a_curve(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    from matplotlib.axes import Axes

    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, *a, **o: drawn.append(a) or plot(self, *a, **o))
    monkeypatch.setattr(training, "draw_curve", curve.draw_curve)  # anew, whatever other tests have drawn
    run = train(recipe("lora", max_steps=5, log_steps=50))
    losses = [(entry["step"], entry["loss"]) for entry in run.history() if "loss" in entry]
    assert [step for step, _ in losses] == [5]
    assert 0.1 < losses[0][1] < 5
    assert run.metrics()["train_loss"] == pytest.approx(losses[0][1])
    assert drawn[0] == ((5,), (losses[0][1],))
