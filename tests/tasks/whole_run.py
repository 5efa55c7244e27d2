"""A task from its data to its merged model, stopped on the way and resumed: what must hold for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from structune.finetune.adapters import apply_method
from structune.finetune.evaluate import Evaluation, evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import load_data
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import train
from structune.tasks.task import Base, Targets
from structune.testing.tasks import stopped_after

METHOD = {"name": "c3a", "block_size": 8}
SETTINGS = {
    "max_steps": 16, "batch_size": 8, "log_steps": 4, "save_steps": 100, "scheduler": "onecycle", "device": "cpu",
    "learning_rate": 0.02, "head_learning_rate": 0.02,
}  # fmt: skip


def recipe_of(
    task: Any, data: dict[str, Any], model: Path, folder: Path, method: Any = METHOD, **settings: Any
) -> Recipe:
    """A recipe of a tiny run in a folder."""
    return Recipe.parse(
        {
            "name": "tiny",
            "output": str(folder),
            "task": task,
            "model": {"name": str(model)},
            "data": data,
            "method": method,
            "train": SETTINGS | settings,
        }
    )


def made_ready(recipe: Recipe) -> tuple[Base, Any, Sequence[Mapping[str, Any]], Targets]:
    """Base, adapted model with numbers that change it, the encoded examples to train on, and the targets."""
    task = recipe.task
    data = load_data(task, recipe.data)
    base = task.load(recipe.model, data.targets, 0)
    encoded = task.encode(data.train, base, data.targets, recipe.data)
    model: Any = apply_method(base, recipe.method, task)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    return base, model.eval(), encoded, data.targets


def trainer_of(recipe: Recipe, base: Base, model: Any, encoded: Any, targets: Targets | None = None) -> RecipeTrainer:
    """What would train it, standing on the task's own trainer."""
    beneath = recipe.task.trainer(base, recipe.data)
    folder = Path(recipe.output or "")
    return RecipeTrainer.standing_on(beneath, model, base, recipe.resolved(), targets or {}, folder, encoded)


def straight_and_resumed(make: Callable[[str], Recipe], monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Evaluation]:
    """Train once straight and once with a stop on the way: the bits are the same, and evaluating gives the scores.

    Args:
        make: the recipe of a run in a folder of that name.
        monkeypatch: pytest's own.
    """
    straight = train(make("straight"))
    stopped_after(5, make("stopped"), monkeypatch)
    resumed = train(make("stopped"), resume=True)
    expected, found = (load_file(run.adapter / "adapter_model.safetensors") for run in (straight, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert straight.metrics()["eval_loss"] == resumed.metrics()["eval_loss"]
    result = evaluate(resumed.folder)
    assert {f"eval_{key}": value for key, value in result.scores.items()}.items() <= resumed.metrics().items()
    assert result.loss == resumed.metrics()["eval_loss"]
    return resumed, result
