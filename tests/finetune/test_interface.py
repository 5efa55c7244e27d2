"""The interface in Python: light to import, and one way from a recipe to a run and what is done with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import structune.finetune
from structune.errors import UserError
from structune.finetune import Evaluation, Recipe, Run, train
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.text_classification import TextClassification

MakeRecipe = Callable[..., Recipe]
HEAVY = {"torch", "peft", "transformers", "accelerate", "datasets", "matplotlib", "pandas", "numpy", "huggingface_hub"}


def test_it_is_light_to_import_and_train_is_the_function() -> None:
    """In whatever order modules and names are imported, a name is what it says."""
    program = f"""
import sys
from structune.finetune import Recipe, Run, train
Recipe(data={{"train": "x.csv"}}); Run("x")
assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)
import structune.finetune.training, structune.finetune
assert structune.finetune.train is train and callable(train)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(structune.finetune.__all__) <= set(dir(structune.finetune))


def test_a_recipe_is_made_from_keywords() -> None:
    made = Recipe(data={"train": "x.csv", "label": "y"}, method="lora", train={"epochs": 2})
    assert made == Recipe.parse({"data": {"train": "x.csv", "label": "y"}, "method": "lora", "train": {"epochs": 2}})
    assert made.model_fields_set == {"data", "method", "train"}
    data = LabelledTextData(train="x.csv", label="y")
    assert Recipe(task=TextClassification(), data=data).data == data
    with pytest.raises(UserError, match=r"recipe: data\.lable: unknown key \(did you mean 'label'\?\)"):
        Recipe(data={"train": "x.csv", "lable": "y"})
    with pytest.raises(UserError, match=r"recipe: seed = -1"):
        Recipe(data={"train": "x.csv"}, seed=-1)


def test_from_a_mapping_to_everything(recipe: MakeRecipe, tmp_path: Path) -> None:
    content = recipe("lora", max_steps=8, learning_rate=0.02, head_learning_rate=0.02).model_dump(mode="json")
    run = train(content)
    assert isinstance(run, Run) and Run.finished(str(run.folder)) == run == Run(str(run.folder))
    evaluation = run.evaluate()
    assert isinstance(evaluation, Evaluation)
    assert evaluation.scores["accuracy"] == run.metrics()["eval_accuracy"]
    one, other = run.predict(["a good film", "a bad film"])
    assert one["probability positive"] > other["probability positive"]
    assert run.predict_to(["a good film"], tmp_path / "out.jsonl") == 1
    assert run.merge(tmp_path / "merged") < 1e-4
    assert run.push_to_hub("me/it", dry_run=True).url is None
    with pytest.raises(UserError, match="holds a finished run"):
        train(recipe("lora"))
