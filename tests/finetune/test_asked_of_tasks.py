"""What runs ask a task beside its examples and loss: files, settings, the base model, what merging is checked by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from structune.errors import UserError
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.tasks import registry
from structune.tasks.text_classification import TextClassification


class Asked(TextClassification):
    """Classifies texts, and says more about itself."""

    name: Literal["asked"] = "asked"  # type: ignore[assignment]  # another name
    words: str = "words.txt"
    base: bool = False
    alike: bool = True

    def with_files(self, change: Callable[[str], str]) -> Asked:
        return self.model_copy(update={"words": change(self.words)})

    def keeps_base(self) -> bool:
        return self.base

    def check_training(self, train: Any, examples: int, processes: int) -> None:
        if train.batch_size > examples:
            raise UserError(f"train.batch_size = {train.batch_size}: more than {examples}, in {processes} process")

    def compared(self, model: Any, batch: Any) -> Any:
        outputs = self.step(model, batch)[1]
        return outputs if self.alike or hasattr(model, "peft_config") else outputs + 1


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.TASKS, "_registered", {"asked": Asked})


@pytest.fixture
def asking(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Recipe]:
    """Tiny recipes of the task; its options by name, the train section's as `train`."""

    def make(method: Any = "lora", train: Any = None, **options: Any) -> Recipe:
        content = recipe(method, max_steps=2, **(train or {})).model_dump(mode="json", exclude_none=True)
        return Recipe.parse({**content, "task": {"name": "asked", **options}})

    return make


def test_files_of_a_task(asking: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run's folder by their whole paths, so that it is read from anywhere; in its card by their names."""
    monkeypatch.chdir(tmp_path)
    run = train(asking())
    assert yaml.safe_load(run.recipe_file.read_text())["task"]["words"] == str(tmp_path / "words.txt")
    card = (run.adapter / "README.md").read_text()
    assert "words: words.txt" in card
    assert str(tmp_path) not in card


def test_settings_that_do_not_go_with_a_task(asking: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match="train.batch_size = 61: more than 60, in 1 process"):
        train(asking(train={"batch_size": 61}))


BIASES = {"name": "structune", "block_size": 8, "bias": "all"}


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("full", "method full: trains the model itself, and task asked compares"),
        (BIASES, "trains '.*bias' of the model"),
    ],
    ids=["full", "biases"],
)
def test_a_base_model_that_is_kept(asking: Callable[..., Recipe], method: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        train(asking(method, base=True))


def test_what_merging_is_checked_by(asking: Callable[..., Recipe], tmp_path: Path) -> None:
    assert merge(train(asking()).folder, tmp_path / "merged") < 1e-4
    other = train(asking(alike=False).model_copy(update={"output": str(tmp_path / "other")}))
    with pytest.raises(UserError, match="merging changes the outputs"):
        merge(other.folder, tmp_path / "wrong")
