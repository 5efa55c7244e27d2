"""Any type of PEFT's as a method, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from structune.errors import UserError
from structune.finetune.adapters import check_method
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train

MakeRecipe = Callable[..., Recipe]


def test_a_type_that_has_no_file_of_its_own_trains_and_loads(recipe: MakeRecipe) -> None:
    method = {"name": "peft", "type": "MISS", "r": 4, "init_weights": True}
    run = train(recipe(method, learning_rate=0.05))
    metrics = run.metrics()
    assert metrics["method"] == "miss-r=4-init_weights=True"
    assert metrics["trainable_adapter"] == 4 * 4 * 32  # query and value of two layers
    assert evaluate(run.folder).loss == pytest.approx(metrics["eval_loss"], rel=1e-5)
    assert Recipe.load(run.folder / "recipe.yaml").method == recipe(method).method


def test_a_type_may_be_written_small(recipe: MakeRecipe) -> None:
    given: Any = recipe({"name": "peft", "type": "lora", "r": 2, "target_modules": ["key"]}).method
    config = given.config(target_modules=["key"], modules_to_save=None, task_type=None)
    assert (str(config.peft_type.value), config.r) == ("LORA", 2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"type": "MSS"}, r"type = 'MSS': unknown to PEFT \(did you mean 'MISS'\?\); known: .*LORA"),
        ({"type": "LORA", "rank": 4}, r"rank: LORA takes no such option.*; it takes .*lora_alpha, .*r, "),
        ({"type": "LORA", "lora_alhpa": 4}, r"lora_alhpa: LORA takes no such option \(did you mean 'lora_alpha'\?\)"),
        ({"type": "PROMPT_TUNING", "num_virtual_tokens": 4}, r"type = 'PROMPT_TUNING': adapts no layers"),
    ],
)
def test_what_peft_has_not_is_told_before_a_model_is_loaded(
    settings: dict[str, Any], expected: str, recipe: MakeRecipe
) -> None:
    with pytest.raises(UserError, match=expected):
        check_method(recipe({"name": "peft", **settings}).method)


def test_what_the_run_fills_in_is_refused(recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match="modules_to_save is filled in by the run; remove it"):
        recipe({"name": "peft", "type": "LORA", "modules_to_save": ["classifier"]})
    with pytest.raises(UserError, match=r"method\.type: missing"):
        recipe({"name": "peft"})
