"""Training: what a run leaves behind, that it learns, and that stopping and resuming changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from structune.errors import Interrupted, UserError
from structune.finetune.adapters import apply_method, split_parameters
from structune.finetune.evaluate import load_run
from structune.finetune.recipe.recipe import ModelSection, Recipe
from structune.finetune.run_folder.card import model_card
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import train
from structune.tasks.task import Base

from ..forked import python

MakeRecipe = Callable[..., Recipe]
SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"name": "c3a", "block_size": 8},
    "hydra": {"name": "hydra", "structure": "toeplitz", "pool_size": 24},
    "structune": {"name": "structune", "structure": "cauchy", "num_splits": 2},
    "lora": {"name": "lora", "rank": 2},
    "vera": {"name": "vera", "rank": 4},
    "boft": {"name": "boft"},
    "ia3": {"name": "ia3"},
    "peft_c3a": {"name": "peft_c3a", "block_size": 8},
    "tinylora": {"name": "tinylora", "size": 13},
    "unilora": {"name": "unilora", "size": 100},
    "vblora": {"name": "vblora", "vectors": 10, "length": 8},
    "head": {"name": "head"},
    "bitfit": {"name": "bitfit"},
    "full": {"name": "full"},
}
ADAPTER_NUMBERS = {
    "c3a": 4 * 16 * 8,
    "hydra": 4 * 24,
    "lora": 4 * 2 * 64,
    "ia3": 4 * 32,
    "tinylora": 13,
    "unilora": 100,
    "head": 0,
}


@pytest.mark.parametrize("method", SMALL)
def test_every_method_trains_saves_and_loads_back(
    method: str, recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))  # peft's BOFT tries to compile one
    run = train(recipe(SMALL[method], max_steps=3))
    metrics = run.metrics()
    assert metrics["steps"] == 3
    assert metrics["trainable_head"] == (32 + 1) * 2
    if method in ADAPTER_NUMBERS:
        assert metrics["trainable_adapter"] == ADAPTER_NUMBERS[method]
        assert metrics["adapter_bytes"] >= 4 * ADAPTER_NUMBERS[method]
    assert metrics["file_bytes"] == (run.adapter / "adapter_model.safetensors").stat().st_size
    assert load_run(run.folder).model is not None


@pytest.mark.parametrize("method", ["c3a", "hydra", "lora", "bitfit"])
def test_training_changes_only_the_adapter_and_the_head(method: str, recipe: MakeRecipe) -> None:
    settings = recipe(SMALL[method], max_steps=3).resolved()
    run = train(settings)
    names = run.metrics()["targets"]
    pristine = dict(settings.task.load(settings.model, names, settings.seed).model.named_parameters())
    loaded = load_run(run.folder)
    adapter, head = split_parameters(loaded.model, loaded.base.head)
    trained = {*adapter, *head}
    compared = 0
    for name, parameter in loaded.model.named_parameters():
        if name not in trained:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "").replace("original_module.", "")
            if plain in pristine:
                assert torch.equal(parameter, pristine[plain])
                compared += 1
    assert compared > 20


def test_a_run_folder_is_complete(recipe: MakeRecipe, tmp_path: Path) -> None:
    settings = recipe("lora")
    run = train(settings)
    names = {"recipe.yaml", "versions.json", "metrics.json", "curve.png", "log.jsonl", "adapter", "checkpoints"}
    names |= {"run.json", "data.json", ".lock"}
    assert {path.name for path in run.folder.iterdir()} == names
    assert {path.name for path in run.adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    assert run.recipe() == settings.resolved()
    assert run.curve_file.read_bytes().startswith(b"\x89PNG")
    assert json.loads(run.versions_file.read_text())["torch"].startswith(torch.__version__.split("+")[0])
    losses = [entry["loss"] for entry in run.history() if "loss" in entry]
    assert len(losses) == 3
    assert run.metrics()["train_loss"] == pytest.approx(sum(losses) / 3)
    assert all(value is not None for value in run.metrics().values())


def test_it_learns(recipe: MakeRecipe) -> None:
    settings = {"max_steps": 80, "learning_rate": 0.05, "head_learning_rate": 0.05}
    metrics = train(recipe(SMALL["c3a"], **settings)).metrics()
    assert metrics["eval_accuracy"] >= 0.9
    assert metrics["train_loss"] < 0.5


def test_same_seed_same_weights_other_seed_others(recipe: MakeRecipe) -> None:
    def weights(output: str, seed: int) -> dict[str, torch.Tensor]:
        settings = recipe("lora", output).model_copy(update={"seed": seed})
        return load_file(train(settings).adapter / "adapter_model.safetensors")

    first, again, other = weights("a", 3), weights("b", 3), weights("c", 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_how_often_it_is_evaluated_does_not_change_the_weights(recipe: MakeRecipe) -> None:
    once, often = train(recipe("lora", "once", eval_steps=6)), train(recipe("lora", "often", eval_steps=1))
    assert len([entry for entry in often.history() if "eval_loss" in entry]) == 6
    expected, found = (load_file(run.adapter / "adapter_model.safetensors") for run in (once, often))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_untrained_model_is_scored_before_the_first_step(recipe: MakeRecipe) -> None:
    run = train(recipe(SMALL["c3a"], "first", evaluate_first=True, learning_rate=0.1, head_learning_rate=0.1))
    still = train(recipe(SMALL["c3a"], "still", max_steps=1, learning_rate=1e-30, head_learning_rate=1e-30))
    before = next(entry for entry in run.history() if "eval_loss" in entry)
    assert before["step"] == 0 and before["eval_loss"] == pytest.approx(still.metrics()["eval_loss"], rel=1e-6)
    assert abs(before["eval_loss"] - run.metrics()["eval_loss"]) > 1e-3


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C while step `step` + 1 is under way."""

    def press(
        self: StopOnInterrupt, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StopOnInterrupt, "on_step_begin", press)


@pytest.mark.parametrize(
    ("method", "step", "scheduler"),
    [
        ("ia3", 12, "cosine"),
        ("c3a", 4, "onecycle"),
        ("hydra", 7, "cosine"),
        ("lora", 12, "onecycle"),
        ("full", 9, "linear"),
        ("head", 0, "constant"),
    ],
)
def test_interrupted_and_resumed_gives_the_same_bits(
    method: str, step: int, scheduler: str, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 steps an epoch; the model has dropout, so the random state must come back too."""
    settings = {"max_steps": 20, "scheduler": scheduler, "learning_rate": 0.01, "weight_decay": 0.1, "save_steps": 100}
    settings["group_by_length"] = method in ("hydra", "ia3")
    handler = signal.getsignal(signal.SIGINT)
    straight = train(recipe(SMALL[method], "straight", **settings))
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        with pytest.raises(Interrupted, match=rf"stopped after step {step + 1}, and saved; continue with: .* --resume"):
            train(recipe(SMALL[method], "stopped", **settings))
    stopped = recipe(SMALL[method], "stopped", **settings)
    run = Run(Path(stopped.output or ""))
    assert run.state() == "unfinished"
    assert run.last_checkpoint() == run.checkpoints / f"checkpoint-{step + 1}"
    resumed = train(stopped, resume=True)
    expected = load_file(straight.adapter / "adapter_model.safetensors")
    found = load_file(resumed.adapter / "adapter_model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.metrics()["eval_loss"] == straight.metrics()["eval_loss"]
    assert resumed.metrics()["train_loss"] == pytest.approx(straight.metrics()["train_loss"], rel=1e-6)
    steps = [entry["step"] for entry in resumed.history() if "loss" in entry]
    assert steps == sorted(set(steps))
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_crash_loses_only_what_came_after_the_checkpoint(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"max_steps": 12, "save_steps": 5}
    straight = train(recipe(SMALL["c3a"], "straight", **settings))

    def fail(
        self: StopOnInterrupt, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 8:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(StopOnInterrupt, "on_step_begin", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe(SMALL["c3a"], "cut", **settings))
    run = Run(Path(recipe(output="cut").output or ""))
    (run.checkpoints / "checkpoint-9").mkdir()  # begun, not finished
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-5"
    train(recipe(SMALL["c3a"], "cut", **settings), resume=True)
    expected = load_file(straight.adapter / "adapter_model.safetensors")
    found = load_file(run.adapter / "adapter_model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [e["step"] for e in run.history() if "loss" in e] == [e["step"] for e in straight.history() if "loss" in e]


def test_gradient_accumulation_is_a_larger_batch(recipe: MakeRecipe, tiny_model: Path, tmp_path: Path) -> None:
    """Without dropout, 2 × 4 examples give the loss and the gradient that 8 give."""
    still = shutil.copytree(tiny_model, tmp_path / "still")
    config = json.loads((still / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (still / "config.json").write_text(json.dumps(config))
    first_steps = []
    for output, (batch, parts) in {"whole": (8, 1), "parts": (4, 2)}.items():
        settings = recipe("lora", output, batch_size=batch, gradient_accumulation=parts, max_steps=1, log_steps=1)
        settings = settings.model_copy(update={"model": ModelSection(name=str(still))})
        first_steps.append(train(settings).history()[0])
    for key in ("loss", "grad_norm"):
        assert first_steps[0][key] > 1e-3
        assert first_steps[1][key] == pytest.approx(first_steps[0][key], rel=1e-4)


def test_adapter_and_head_have_their_own_learning_rates(recipe: MakeRecipe, tmp_path: Path) -> None:
    settings = recipe(SMALL["c3a"], learning_rate=0.5, head_learning_rate=0.25, warmup=0.5).resolved()
    base = settings.task.load(settings.model, {"classes": ["a", "b"]}, 0)
    adapted = apply_method(base, settings.method, settings.task)
    trainer = RecipeTrainer(adapted, base, settings, {"classes": ["a", "b"]}, tmp_path)
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    largest = [0.0, 0.0]
    for _ in range(10):
        largest = [max(old, group["lr"]) for old, group in zip(largest, trainer.optimizer.param_groups, strict=True)]
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert largest == pytest.approx([0.5, 0.25])
    adapter, head = split_parameters(adapted, base.head)
    assert [set(map(id, group["params"])) for group in trainer.optimizer.param_groups] == [
        set(map(id, adapter.values())),
        set(map(id, head.values())),
    ]
    assert set(head) == {f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")}


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 11])
def test_onecycle_takes_any_number_of_steps(steps: int, recipe: MakeRecipe, tmp_path: Path) -> None:
    """A rise of a tenth of ten steps is one step, which OneCycleLR itself divides by zero for."""
    settings = recipe(SMALL["c3a"], learning_rate=0.5, head_learning_rate=0.25, warmup=0.1).resolved()
    base = settings.task.load(settings.model, {"classes": ["a", "b"]}, 0)
    adapted = apply_method(base, settings.method, settings.task)
    trainer = RecipeTrainer(adapted, base, settings, {"classes": ["a", "b"]}, tmp_path)
    trainer.create_optimizer_and_scheduler(num_training_steps=steps)
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    rates = []
    for _ in range(steps):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert all(0 < rate <= 0.5 * (1 + 1e-9) for rate in rates)
    assert steps == 1 or max(rates) > 0.2


def test_bf16_and_gradient_checkpointing(recipe: MakeRecipe) -> None:
    metrics = train(recipe(SMALL["hydra"], precision="bf16", gradient_checkpointing=True)).metrics()
    assert metrics["dtype"] == "bf16"
    assert 0 < metrics["train_loss"] < 2


def test_fp16_needs_a_gpu(recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match=r"train\.precision = 'fp16': needs a GPU"):
        train(recipe(precision="fp16"))


def test_finished_runs_are_kept(recipe: MakeRecipe) -> None:
    run = train(recipe("lora", max_steps=2))
    before = run.metrics_file.read_bytes()
    with pytest.raises(UserError, match="holds a finished run; use --overwrite"):
        train(recipe("lora", max_steps=2))
    with pytest.raises(UserError, match="the run is finished; there is nothing to resume"):
        train(recipe("lora", max_steps=2), resume=True)
    assert run.metrics_file.read_bytes() == before
    assert train(recipe("lora", max_steps=3), overwrite=True).metrics()["steps"] == 3


def test_a_folder_that_is_no_run_is_never_touched(recipe: MakeRecipe, tmp_path: Path) -> None:
    thesis = tmp_path / "run" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match="holds other files than a run's"):
            train(recipe(), **flags)
    assert thesis.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "hydra", "rank": 2}, "method hydra-toeplitz: rank=2 does not go with structure='toeplitz'"),
        (
            {"name": "hydra", "structure": "low_rank", "rnak": 2},
            "rnak=2 does not go .*: leave it out; low_rank has rank$",
        ),
        ({"name": "structune"}, "method structune-circulant: block_size=None and num_splits=None: give exactly one"),
        ({"name": "c3a", "algorithm": "factored"}, "method c3a: algorithm='factored' does not multiply circulant"),
    ],
)
def test_what_no_model_can_have_is_told_before_data_and_model_are_read(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("structune.finetune.training.load_data", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match=said):
        train(recipe(settings))
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_when_something_is_wrong(recipe: MakeRecipe, reviews: Path, tmp_path: Path) -> None:
    wrong = recipe({"name": "lora", "target_modules": ["querry"]})
    with pytest.raises(
        UserError, match=r"the model has no layer 'querry' \(did you mean 'query'\?\); its layers: .*key"
    ):
        train(wrong)
    elsewhere = recipe().model_copy(update={"model": recipe().model.model_copy(update={"name": str(tmp_path)})})
    with pytest.raises(UserError, match=r"model\.name = .* The folder must hold a config\.json"):
        train(elsewhere)
    reviews.write_text("text,label\n")
    with pytest.raises(UserError, match="a header and no rows"):
        train(recipe())
    assert not (tmp_path / "run").exists()


def test_resume_needs_the_same_recipe_and_a_run(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no run to resume"):
        train(recipe(), resume=True)
    interrupt_at(2, monkeypatch)
    with pytest.raises(Interrupted):
        train(recipe())
    with pytest.raises(UserError, match=r"holds an unfinished run; use --resume to go on with it, or --overwrite"):
        train(recipe())
    with pytest.raises(UserError, match=r"the recipe differs from the run's \(train\.batch_size: 8 then, 4 now\)"):
        train(recipe(batch_size=4), resume=True)


def test_the_card_loads_the_adapter_in_a_fresh_process(recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe(SMALL["hydra"], max_steps=40, learning_rate=0.02, head_learning_rate=0.02))
    card = (run.adapter / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(run.adapter))
    answer = python(code.replace("some text", "the film was superb"), folder=tmp_path)
    loaded = load_run(run.folder)
    tokens = loaded.base.processor(["the film was superb"], return_tensors="pt")
    expected = loaded.targets["classes"][int(loaded.model(**tokens).logits.argmax())]
    assert answer == expected
    # Several texts, one of them too long for the model: padded, cut, and the labels are the run's own.
    texts = ["the film was superb", "dull", "a story with awful music " * 40]
    several = (
        code.replace('["some text"]', repr(texts))
        + "print(model.config.id2label)\nprint(tuple(tokens.input_ids.shape))\n"
    )
    lines = python(several, folder=tmp_path).splitlines()
    logits = [
        loaded.model(**loaded.base.processor([text], truncation=True, return_tensors="pt")).logits for text in texts
    ]
    assert lines[:3] == [loaded.targets["classes"][int(row.argmax())] for row in logits]
    assert lines[3:] == ["{0: 'negative', 1: 'positive'}", "(3, 64)"]
    recipe_in_card = card.split("```yaml\n")[1].split("```")[0]
    assert str(tmp_path) not in recipe_in_card


def test_the_card_of_pairs_reads_pairs_and_of_a_revision_names_it(recipe: MakeRecipe) -> None:
    settings = recipe("lora").resolved()
    data = settings.data.model_copy(update={"text_pair": "second", "max_length": 17})
    model = settings.model.model_copy(update={"name": "some/model", "revision": "abc"})
    metrics: dict[str, Any] = dict.fromkeys(
        ("eval_examples", "train_examples", "steps", "trainable_adapter", "trainable_head", "adapter_bytes", "seed"), 1
    )
    metrics |= dict.fromkeys(("eval_accuracy", "eval_f1", "eval_matthews", "eval_loss"), 0.5)
    metrics |= {"method": "lora", "device": "cpu", "dtype": "fp32"}
    targets = {"classes": ["it's", 'a "b"']}
    loaded = Base(None, SimpleNamespace(model_max_length=64))
    card = model_card(settings.model_copy(update={"data": data, "model": model}), metrics, targets, loaded)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "tokenizer(texts, seconds, padding=True, truncation=True, max_length=17" in code
    assert code.count("'some/model', revision='abc'") == 2
