"""Recipes in small: of every task one, and those that come with structune, on a model and rows that are made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from structune.errors import UserError
from structune.finetune.miniature import Miniatures
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.recipe.shipped import recipe_names
from structune.finetune.training import make_ready

NARROW = 64

RECIPES: dict[str, dict[str, Any]] = {
    "text-classification": {"data": {"hub": "a/b", "text": "one", "text_pair": "two"}, "model": {"name": "x/roberta"}},
    "text-regression": {"data": {"train": "nowhere.csv", "label": "score"}, "model": {"name": "x/distilbert-base"}},
    "multi-label-classification": {"data": {"hub": "a/b", "labels": ["joy", "anger"]}, "model": {"name": "x/bert"}},
    "token-classification": {"data": {"hub": "a/b", "words": "w"}, "model": {"name": "x/roberta-large"}},
    "image-classification": {"data": {"hub": "a/b", "image_size": 112}, "model": {"name": "x/dinov2-small"}},
    "instruction": {"data": {"hub": "a/b", "prompt": "q", "completion": "a"}, "model": {"name": "x/Qwen2.5-0.5B"}},
    "preference": {"data": {"hub": "a/b"}, "model": {"name": "x/Llama-2-7b"}},
    "reward": {"data": {"hub": "a/b"}, "model": {"name": "x/no-such-architecture"}},
}

KINDS = {"text-regression": "distilbert", "image-classification": "dinov2", "instruction": "qwen2", "reward": "llama"}
"""What the models' names say; of the last they say nothing."""


def first_loss(recipe: Recipe, folder: Path, widest: int = NARROW) -> tuple[Any, float]:
    """What a run has ready, and the loss of its first examples."""
    small, test = Miniatures(folder, widest).of(recipe, "run")
    ready = make_ready(small, resume=False, overwrite=False, console=None, recipe_file=None)
    task = ready.settings.task
    batch = task.collator(ready.base, False)(list(ready.encoded.evaluation)[:2])
    with torch.no_grad():
        loss, _ = task.step(ready.model.eval(), batch)
    assert test.is_file() and not ready.run.folder.exists()
    return ready, float(loss)  # type: ignore[arg-type]  # there are labels


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.filterwarnings("ignore")
def test_every_task_has_a_small_model_and_makes_up_rows(name: str, tmp_path: Path) -> None:
    if name in ("instruction", "preference", "reward"):
        pytest.importorskip("trl", minversion="1.16")
    recipe = Recipe.parse({"task": name, "method": "lora", **RECIPES[name]})
    ready, loss = first_loss(recipe, tmp_path)
    assert math.isfinite(loss)
    config = ready.base.model.config
    assert (config.num_hidden_layers, config.hidden_size <= NARROW) == (2, True)
    wanted = {
        "text-regression": "distilbert",
        "image-classification": "dinov2",
        "instruction": "qwen2",
        "reward": "llama",
    }
    assert config.model_type == wanted.get(name, config.model_type)
    assert len(ready.data.train) == 24
    assert len(ready.data.evaluation) == 6


def test_widths_are_kept_and_halved_together(tmp_path: Path) -> None:
    recipe = Recipe.parse({**RECIPES["token-classification"], "task": "token-classification", "method": "lora"})
    miniatures = Miniatures(tmp_path / "large", 600)
    small, _ = miniatures.of(recipe, "run")
    again, _ = miniatures.of(recipe.with_method("c3a"), "again")
    assert small.model == again.model and small.data == again.data and len(miniatures.notes) == 2
    config = recipe.task.load(small.model, {"classes": ["O", "B-x"]}, 0).model.config
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (512, 2048, 8)


@pytest.mark.filterwarnings("ignore")
def test_data_that_are_there_are_read_as_a_whole(recipe: Any, reviews: Path, tmp_path: Path) -> None:
    miniatures = Miniatures(tmp_path / "small", NARROW)
    small, test = miniatures.of(recipe("lora"), "run")
    lines = set(reviews.read_text().splitlines())
    assert set(test.read_text().splitlines()) <= lines and len(test.read_text().splitlines()) == 7
    assert len(Path(str(small.data.train)).read_text().splitlines()) == 25
    assert small.train.max_steps == 2 and small.method == recipe("lora").method
    with reviews.open("a") as file:
        file.write(",positive\n")
    with pytest.raises(UserError, match="have nothing there"):
        Miniatures(tmp_path / "wrong", NARROW).of(recipe("lora"), "run")


HUB = [name for name in recipe_names() if Recipe.load(name).task.name != "text-to-image" and Recipe.load(name).data.hub]


@pytest.mark.parametrize("name", HUB)
@pytest.mark.filterwarnings("ignore")
def test_methods_of_the_recipes_fit_their_models(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    if recipe.task.auto_class == "AutoModelForCausalLM":
        pytest.importorskip("trl", minversion="1.16")
    ready, loss = first_loss(recipe, tmp_path, widest=256)
    assert math.isfinite(loss)
    assert any(part.requires_grad for part in ready.model.parameters())
