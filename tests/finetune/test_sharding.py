"""Two processes hold one frozen model together (FSDP2) and train what one process trains, stopped and resumed too."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

import structune
from structune.errors import UserError
from structune.finetune.distributed.sharding import Sharding
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train
from structune.tasks.task import Base

from ..two_processes import run_by_two

SETTINGS = {"epochs": 2.0, "batch_size": 16, "eval_batch_size": 7, "log_steps": 1, "save_steps": 3, "device": "cpu"}
CHOSEN = {"gradient_accumulation": 2, "eval_steps": 2, "early_stopping": 3, "best_checkpoint": True}
POOL = {"name": "c3a", "block_size": 8, "pool_scope": "model", "pool_size": 64}
MATCHED = {"name": "text-classification", "head": "match", "rematch": "epoch"}


def recipe_of(folder: Path, model: str, **settings: Any) -> dict[str, Any]:
    """67 of 93 sentences to train on, sixteen a step: the last batch has three."""
    return {
        "name": "tiny",
        "model": {"name": str(folder / model)},
        "data": {"train": str(folder / "data.csv"), "evaluation_examples": 16, "test_examples": 10},
        "method": {"name": "c3a", "block_size": 8},
        "train": {**SETTINGS, "learning_rate": 0.03, **settings},
    }


def matched_recipe(folder: Path) -> dict[str, Any]:
    return {**recipe_of(folder, "classifier"), "task": MATCHED}


@pytest.fixture(scope="module")
def launched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which two processes ran `spread.py`, and how their commands ended."""
    folder = tmp_path_factory.mktemp("spread")
    shutil.copytree(tiny_model, folder / "noisy")
    still = BertConfig.from_pretrained(tiny_model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    six = BertConfig.from_pretrained(tiny_model, **{**still.to_dict(), "num_labels": 6})
    torch.manual_seed(3)
    heads = BertForSequenceClassification.from_pretrained(tiny_model, config=six)
    for name, model in (("still", BertModel.from_pretrained(tiny_model, config=still)), ("classifier", heads)):
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder / name)
    words = {"good": "positive", "bad": "negative"}
    rows = [f"the film was {word} {'and ' * (n % 5)}end{n},{words[word]}" for n in range(46) for word in words]
    (folder / "data.csv").write_text("text,label\n" + "\n".join([*rows, "superb music,positive"]) + "\n")
    contents = {
        "still": recipe_of(folder, "still", head_learning_rate=0.01),
        "dropout": {
            **recipe_of(folder, "noisy"),
            "method": {"name": "lora", "target_modules": ["query", "word_embeddings"]},
        },
        "matched": matched_recipe(folder),
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    run_by_two(Path(__file__).with_name("spread.py"), *contents, folder=folder, **fsdp)
    return folder, [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in "01"]


def numbers(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["whole", "chosen", "matched"])
def test_two_that_hold_a_part_train_what_one_does(
    name: str, launched: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = launched
    contents = {
        "whole": recipe_of(folder, "still", head_learning_rate=0.01),
        "chosen": {**recipe_of(folder, "still", head_learning_rate=0.01, **CHOSEN), "method": POOL},
        "matched": matched_recipe(folder),
    }
    one, two = train(Recipe.parse({**contents[name], "output": str(tmp_path / "one")})), Run(folder / name)
    before, after = numbers(one.folder), numbers(two.folder)
    assert before.keys() == after.keys()
    for key, expected in before.items():
        torch.testing.assert_close(after[key], expected, rtol=1e-5, atol=1e-5)
    assert len(one.history()) == len(two.history()) > 6
    for ours, theirs in zip(one.history(), two.history(), strict=True):
        for key in ours.keys() & {"loss", "grad_norm", "eval_loss", "eval_accuracy", "learning_rate"}:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-4, abs=1e-5), key
    for key in ("steps", "best_step", "stopped_early", "test_accuracy", "trainable_adapter", "trainable_head"):
        assert two.metrics().get(key) == one.metrics().get(key)
    if name == "matched":
        found = [json.loads((run.adapter / "prepared.json").read_text()) for run in (one, two)]
        assert found[0] == found[1]
        assert found[0]["epoch"] == 1


def test_each_holds_its_part_and_all_end_alike(launched: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, ended = launched
    for shares in (each.pop("shares") for each in ended):
        assert len(shares) == 6
        assert all(0.5 <= share < 0.56 for share in shares)
    codes = [{name: code for name, (code, _) in each.items()} for each in ended]
    assert codes[0] == codes[1] == {
        "first version": 2, "offload": 2, "deepspeed": 2, "full": 2, "no such block": 2, "whole": 0, "chosen": 0,
        "matched": 0, "dropout": 0, "stopped": 143, "resumed": 0,
    }  # fmt: skip
    assert {name: told for name, (_, told) in ended[1].items() if told} == {}
    told = {name: " ".join(words.split()) for name, (_, words) in ended[0].items()}
    assert "FSDP_VERSION = '1': models are split by FSDP2 only; write fsdp_version: 2" in told["first version"]
    assert "FSDP_OFFLOAD_PARAMS = 'true': is not there" in told["offload"]
    assert "ACCELERATE_USE_DEEPSPEED: models are split over processes by FSDP2 only" in told["deepspeed"]
    assert "method full: its checkpoints hold the whole model" in told["full"]
    assert "the model has no LlamaLayer; its classes are" in told["no such block"]
    assert not (folder / "no").exists()


def test_a_stopped_run_goes_on_as_if_it_had_not(launched: tuple[Path, list[dict[str, Any]]]) -> None:
    """With dropout; and an adapted embedding, whose base weight is in no checkpoint."""
    folder, _ = launched
    never, resumed = numbers(folder / "dropout"), numbers(folder / "stopped")
    assert never.keys() == resumed.keys()
    assert any("word_embeddings" in key for key in never)
    assert all(torch.equal(never[key], resumed[key]) for key in never)
    assert all("lora" in key or "classifier" in key for key in never)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the environment asks for, with these values of FSDP's."""

    def ask(**values: str) -> Sharding | None:
        Sharding.asked.cache_clear()
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        for name, value in {"VERSION": "2", **values}.items():
            monkeypatch.setenv(f"FSDP_{name}", value)
        return Sharding.asked()

    yield ask
    Sharding.asked.cache_clear()


def test_a_configuration_is_read(asked: Any) -> None:
    named = asked(TRANSFORMER_CLS_TO_WRAP="BertLayer, ViTLayer", RESHARD_AFTER_FORWARD="false")
    assert named == Sharding("TRANSFORMER_BASED_WRAP", ("BertLayer", "ViTLayer"), 0, False)
    assert os.environ["ACCELERATE_USE_FSDP"] == "false"  # accelerate would spread what trains, too
    assert asked(AUTO_WRAP_POLICY="SIZE_BASED_WRAP", MIN_NUM_PARAMS="500").least == 500
    with pytest.raises(UserError, match="FSDP_AUTO_WRAP_POLICY = 'SOME': is none of"):
        asked(AUTO_WRAP_POLICY="some")
    with pytest.raises(UserError, match=r"FSDP_ACTIVATION_CHECKPOINTING.*train.gradient_checkpointing: true"):
        asked(AUTO_WRAP_POLICY="NO_WRAP", ACTIVATION_CHECKPOINTING="true")


@pytest.mark.parametrize(("times", "refused"), [(1, True), (0, False)])
def test_who_shows_what_a_model_makes_needs_it_whole(times: int, refused: bool, tmp_path: Path) -> None:
    """One process draws samples, which it could not without the others' parts; without samples there is no need."""
    content = {"name": "text-to-image", "samples": {"times": times}}
    recipe = Recipe.parse({"task": content, "model": {"name": "some/pipeline"}, "data": {"train": str(tmp_path)}})
    told = r"task = 'text-to-image': one process shows what its model makes, and under FSDP none has it whole; launch"
    with pytest.raises(UserError, match=told) if refused else nullcontext():
        Sharding().check(recipe.resolved())


def test_what_cannot_be_spread_is_refused() -> None:
    base = nn.Sequential(nn.Linear(8, 8))
    model = get_peft_model(base, structune.c3a(block_size=4, target_modules=["0"]))
    with pytest.raises(UserError, match="does not say what its blocks are; name their class"):
        Sharding()._blocks(model)
    assert Sharding("NO_WRAP")._blocks(model) == []
    kinds = [type(block).__name__ for block in Sharding("SIZE_BASED_WRAP", least=70)._blocks(model)]
    assert kinds[:2] == ["Linear", "StructuneLinear"]
    base[0].weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match="is quantised, and FSDP spreads no such numbers"):
        Sharding().shard(base, Base(base, None), "cpu")
