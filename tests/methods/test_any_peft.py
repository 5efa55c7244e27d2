"""Any type of PEFT's as a method, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

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
        ({"type": "ADAPTION_PROMPT"}, r"type = 'ADAPTION_PROMPT': adapts no layers"),
        ({"type": "TRAINABLE_TOKENS"}, r"type = 'TRAINABLE_TOKENS': adapts no layers"),
        ({"type": "ADALORA"}, r"type = 'ADALORA': allocates ranks .* of AdaLoRA there is \{name: adalora\}"),
        ({"type": "ADAMSS", "use_asa": True}, r"type = 'ADAMSS': allocates ranks"),
        ({"type": "POLY"}, r"type = 'POLY': takes task_ids with each batch"),
        ({"type": "SHADOW"}, r"type = 'SHADOW': is made for other modules .*; name them in target_modules$"),
        ({"type": "LN_TUNING"}, r"type = 'LN_TUNING': is made for other modules .* target_modules, for example .*norm"),
        ({"type": "LN_TUNING", "target_modules": []}, r"type = 'LN_TUNING': is made for other modules"),
        ({"type": "LORA", "init_lora_weights": "eva"}, r"init_lora_weights = 'eva': PEFT works that start out of data"),
        ({"type": "lora", "init_lora_weights": "corda"}, r"init_lora_weights = 'corda': PEFT works"),
        ({"type": "LORA", "init_lora_weights": "lora_ga"}, r"init_lora_weights = 'lora_ga': PEFT works"),
        ({"type": "IA3"}, r"type = 'IA3': PEFT would take feedforward_modules from its own list"),
        ({"type": "LORA", "init_lora_weights": 1}, r"init_lora_weights = 1: input should be a valid boolean; or input"),
        ({"type": "LORA", "r": "8"}, r"r = '8': input should be a valid integer"),
        ({"type": "LORA", "r": None}, r"r = None: input should be a valid integer"),
        ({"type": "LORA", "layers_to_transform": ["a"]}, r"layers_to_transform = \['a'\]: input should be a valid int"),
        ({"type": "BOFT", "boft_block_size": True}, r"boft_block_size = True: input should be a valid integer"),
    ],
)
def test_what_peft_has_not_is_told_before_a_model_is_loaded(
    settings: dict[str, Any], expected: str, recipe: MakeRecipe
) -> None:
    with pytest.raises(UserError, match=expected):
        check_method(recipe({"name": "peft", **settings}).method)


def test_a_type_that_names_its_layers_is_taken_for_them(recipe: MakeRecipe) -> None:
    check_method(recipe({"name": "peft", "type": "LN_TUNING", "target_modules": ["LayerNorm"]}).method)
    check_method(recipe({"name": "peft", "type": "ADAMSS", "use_asa": False}).method)
    check_method(recipe({"name": "peft", "type": "ADAMSS"}).method)  # PEFT's default allocates nothing
    check_method(recipe({"name": "peft", "type": "IA3", "feedforward_modules": []}).method)


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "pissa_niter_4"},  # PEFT's annotation has 'pissa_niter_[number of iters]'
        {"lora_alpha": 0.5},  # an int by its annotation
        {"lora_dropout": 0},
        {"layer_replication": [[0, 1], [0, 2]]},  # tuples, which YAML does not have
        {"rank_pattern": {"query": 4}},
        {"layers_pattern": None},
    ],
)
def test_what_peft_takes_is_not_refused(options: dict[str, Any], recipe: MakeRecipe) -> None:
    given: Any = recipe({"name": "peft", "type": "LORA", **options}).method
    made = given.config(target_modules=["query"], modules_to_save=None, task_type=None)
    assert {key: getattr(made, key) for key in options} == options


def test_lora_s_rate_is_doubted_for_another_type(recipe: MakeRecipe) -> None:
    def told(type_: str, rate: float) -> list[str]:
        return list(recipe({"name": "peft", "type": type_}).method.doubts(nn.Linear(2, 2), rate))

    assert told("LORA", 1e-3) == told("lora", 1e-3) == told("MISS", 2e-3) == []
    (said,) = told("miss", 1e-3)
    assert said.startswith("train.learning_rate = 0.001: is what LoRA begins with, and was not tried for miss")


def test_what_the_run_fills_in_is_refused(recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match="modules_to_save is filled in by the run; remove it"):
        recipe({"name": "peft", "type": "LORA", "modules_to_save": ["classifier"]})
    with pytest.raises(UserError, match=r"method\.type: missing"):
        recipe({"name": "peft"})
