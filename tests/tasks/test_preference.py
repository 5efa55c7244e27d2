"""Preferences: DPO against its formula in plain loops, its reference, and what goes with it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.chat import Chat
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.predict import predict
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.finetune.training import train

from .whole_run import SETTINGS, made_ready, straight_and_resumed, trainer_of

Pairs = list[dict[str, Any]]


@pytest.fixture
def pairs() -> Pairs:
    """Longer and shorter ones: a batch is padded."""
    words = ["good", "bad", "a film", "the story and music", "end"]
    return [
        {"prompt": f"{words[n % 5]} {n}? ", "chosen": f"good{' yes' * (n % 3)}", "rejected": f"bad{' no' * (n % 4)}"}
        for n in range(40)
    ]


@pytest.fixture
def recipe(tiny_writer: Path, tmp_path: Path, pairs: Pairs) -> Callable[..., Recipe]:
    """Recipes of tiny runs: `recipe("run", method=…)`; other keywords go to the train section."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))

    def make(output: str = "run", method: Any = None, data: Any = None, task: Any = None, **settings: Any) -> Recipe:
        return Recipe.parse(
            {
                "output": str(tmp_path / output),
                "task": {"name": "preference", "chat_template": "plain", **(task or {})},
                "model": {"name": str(tiny_writer)},
                "data": {"train": str(path), "evaluation_examples": 10, **(data or {})},
                "method": method or {"name": "c3a", "block_size": 8},
                "train": {key: value for key, value in SETTINGS.items() if key != "head_learning_rate"} | settings,
            }
        )

    return make


@pytest.fixture
def altered(tiny_writer: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny model with other values in its configuration, and other weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(**values: Any) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(tiny_writer, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
        return folder

    return make


def of_model(recipe: Recipe, folder: Path) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": str(folder)})})


def ready(recipe: Recipe) -> tuple[Any, Any, Any]:
    """Base, adapted model with numbers that change it, and encoded pairs."""
    return made_ready(recipe)[:3]


def log_probability(model: Any, prompt: list[int], response: list[int]) -> float:
    """Token by token, each from all before it, unpadded and alone."""
    total = 0.0
    for place, token in enumerate(response):
        seen = torch.tensor([prompt + response[:place]])
        logits = [float(value) for value in model(input_ids=seen).logits[0, -1]]
        most = max(logits)
        total += logits[token] - most - math.log(math.fsum(math.exp(value - most) for value in logits))
    return total


def by_the_formula(model: Any, rows: Any, beta: float) -> tuple[float, list[float]]:
    """Equation 7 of Rafailov et al. (2023), in fp64 and plain loops: the loss, and the margins."""
    margins = []
    for row in rows:
        logs = {}
        for name in ("chosen_ids", "rejected_ids"):
            own = log_probability(model, row["prompt_ids"], row[name])
            with model.disable_adapter():
                logs[name] = own - log_probability(model, row["prompt_ids"], row[name])
        margins.append(beta * logs["chosen_ids"] - beta * logs["rejected_ids"])
    return sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins), margins


POOL = {"name": "hydra", "structure": "circulant", "num_splits": 2, "pool_size": 13, "pool_scope": "model"}


@pytest.mark.parametrize("method", ["lora", POOL], ids=["lora", "pool"])
def test_the_loss_is_that_of_the_paper(recipe: Callable[..., Recipe], method: Any) -> None:
    """In evaluation to the last digits of fp64, and in training as TRL computes it."""
    made = recipe(method=method, task={"beta": 0.7})
    base, model, encoded = ready(made)
    model.double()
    rows = encoded[:5]
    batch = made.task.collator(base, training=False)(rows)
    with torch.no_grad():
        expected, margins = by_the_formula(model, rows, 0.7)
        loss, outputs = made.task.step(model, batch)
    assert abs(margins[0]) > 0.05
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    found = made.task.scores(tuple(part.numpy() for part in outputs), None, {})
    assert found["margin"] == pytest.approx(sum(margins) / 5, rel=1e-9)
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / 5

    model.float()
    trainer = trainer_of(made, base, model, encoded)
    model.train()
    assert float(trainer.compute_loss(model, dict(batch)).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_the_loss(recipe: Callable[..., Recipe]) -> None:
    """What TRL descends along is the gradient of what evaluations tell."""
    made = recipe()
    base, model, encoded = ready(made)
    batch = made.task.collator(base, training=True)(encoded[:6])
    trainer = trainer_of(made, base, model, encoded)
    gradients = []
    for loss in (trainer.compute_loss(model, dict(batch)), made.task.step(model, dict(batch))[0]):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].norm() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_the_reference_is_the_base_model(recipe: Callable[..., Recipe]) -> None:
    """There is one adapter, and what the reference says is what the model said before it was adapted."""
    made = recipe(method=POOL)
    base, model, encoded = ready(made)
    trainer = trainer_of(made, base, model, encoded)
    assert list(model.peft_config) == ["default"]
    assert trainer.ref_model is None
    batch = made.task.collator(base, training=False)(encoded[:6])
    fresh = made.task.load(made.model, {}, 0)
    with torch.no_grad():
        before = made.task.step(fresh.model.eval(), dict(batch))[1]
        chosen, _, *reference = made.task.step(model, dict(batch))[1]
    assert not torch.allclose(chosen, reference[0], atol=1e-2)
    for ours, theirs in zip(reference, before[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_dropout_is_the_adapters_alone(recipe: Callable[..., Recipe], altered: Callable[..., Path]) -> None:
    """The reference drops nothing while it trains; the adapter does what the recipe says."""
    made = of_model(recipe(method={"name": "lora", "dropout": 0.5}), altered(attention_dropout=0.5))
    base, model, encoded = ready(made)
    batch = made.task.collator(base, training=True)(encoded[:6])
    with torch.no_grad():
        still = made.task.step(model.eval(), dict(batch))[1]
        training = made.task.step(model.train(), dict(batch))[1]
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(still[2:], training[2:], strict=True))
    assert not torch.allclose(still[0], training[0], atol=1e-2)


BIASES = {"name": "structune", "block_size": 8, "bias": "all"}


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("full", "method full: trains the model itself, and task preference compares with the model as it was"),
        ("bitfit", "method bitfit: trains the model itself"),
        (BIASES, "method structune-circulant: trains 'model.layers.0.self_attn.*bias' of the model itself"),
    ],
    ids=["full", "bitfit", "biases"],
)
def test_methods_that_train_the_model_itself_are_refused(
    recipe: Callable[..., Recipe], altered: Callable[..., Path], method: Any, told: str
) -> None:
    made = recipe(method=method)
    with pytest.raises(UserError, match=told):
        train(of_model(made, altered(attention_bias=True)))


def test_a_run_learns_and_goes_on(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool for the whole model, accumulated batches, a stop in the second epoch."""
    run, found = straight_and_resumed(
        lambda name: recipe(name, POOL, batch_size=4, gradient_accumulation=2, max_steps=9), monkeypatch
    )
    assert found.scores["accuracy"] > 0.8
    assert found.details["reward_of_chosen"] > 0 > found.details["reward_of_rejected"]
    assert found.baseline.startswith("always the longer response: ")
    said = predict(run.folder, [{"prompt": "a film? ", "chosen": "bad no", "rejected": "good"}])
    assert said[0]["prefers"] == "rejected"
    assert said[0]["margin"] < 0
    assert load_file(run.adapter / "adapter_model.safetensors").keys()
    told: list[str] = []
    assert Chat(run.folder).say("a film? ", told.append) == "".join(told) != ""
    loaded = load_run(run.folder)
    assert sum(p.numel() for name, p in loaded.model.named_parameters() if "pool" in name) == 13


def test_pairs_that_are_alike_count_half(recipe: Callable[..., Recipe], pairs: Pairs, tmp_path: Path) -> None:
    same = [{**row, "rejected": row["chosen"]} for row in pairs[:6]]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    run = train(recipe(max_steps=1))
    with pytest.warns(DataWarning, match="6 of 6 pairs to evaluate on have the same response"):
        found = evaluate(run.folder, tmp_path / "same.jsonl")
    assert found.scores == {"accuracy": 0.5, "margin": 0.0}
    assert found.loss == pytest.approx(math.log(2))


def test_what_is_cut(recipe: Callable[..., Recipe]) -> None:
    """The front of the prompt, then the end of the response, of all that is too long; it is told."""
    made = recipe(data={"max_length": 12})
    task, data = made.task, load_data(made.task, made.data)
    base = task.load(made.model, data.targets, 0)
    whole = task.encode(data.train, base, {}, recipe().data)
    cut = task.encode(data.train, base, {}, made.data)
    for before, after in zip(whole, cut, strict=True):
        longest = max(len(before["chosen_ids"]), len(before["rejected_ids"]))
        room = max(12 - longest, 1)
        assert after["prompt_ids"] == before["prompt_ids"][-room:]
        assert after["chosen_ids"] == before["chosen_ids"][:11]
        assert after["rejected_ids"] == before["rejected_ids"][:11]
    assert any(row["prompt_ids"] != more["prompt_ids"] for row, more in zip(cut, whole, strict=True))
    (doubt,) = task.doubts_about_encoding([data.train], base, made.data)
    assert [doubt] == list(task.doubts_about_encoding([data.train], replace(base, model=None), made.data))
    lengths = [(len(row["prompt_ids"]), max(len(row["chosen_ids"]), len(row["rejected_ids"]))) for row in whole]
    fronts, ends = sum(sum(each) > 12 for each in lengths), sum(each[1] >= 12 for each in lengths)
    assert f"{fronts} of {len(whole)} pairs lose the front" in doubt
    assert f"{ends} of these the ends" in doubt
    assert f"the longest has {max(map(sum, lengths))} tokens" in doubt
    assert not list(task.doubts_about_encoding([data.train], base, recipe().data))
