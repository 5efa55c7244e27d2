"""Two processes of one launch train one run: what one does, told and written once, stopped and resumed together."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler

from structune.finetune.outputs import joined
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.trainer.sampler import Shares, Turns
from structune.finetune.training import train

from ..two_processes import run_by_two

WIDE = {"epochs": 2.0, "batch_size": 8, "eval_batch_size": 7, "log_steps": 1, "save_steps": 3, "device": "cpu"}


def recipe_of(model: Path, data: Path, **train: Any) -> dict[str, Any]:
    """67 of 93 sentences to train on, eight a step: the last batch has three. 16 and 10 are scored, seven at a time."""
    return {
        "name": "tiny",
        "model": {"name": str(model)},
        "data": {"train": str(data), "evaluation_examples": 16, "test_examples": 10},
        "method": {"name": "c3a", "block_size": 8},
        "train": {**WIDE, "learning_rate": 0.03, "head_learning_rate": 0.01, **train},
    }


@pytest.fixture(scope="module")
def launched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which two processes ran `several.py`, and how their commands ended."""
    folder = tmp_path_factory.mktemp("launched")
    shutil.copytree(tiny_model, folder / "still")
    config = json.loads((folder / "still" / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "still" / "config.json").write_text(json.dumps(config | without))
    words = {"good": "positive", "bad": "negative"}
    rows = [f"the film was {word} {'and ' * (n % 5)}end{n},{words[word]}" for n in range(46) for word in words]
    (folder / "data.csv").write_text("text,label\n" + "\n".join([*rows, "superb music,positive"]) + "\n")
    for name, model in (("still", folder / "still"), ("dropout", tiny_model)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe_of(model, folder / "data.csv")))
    run_by_two(Path(__file__).with_name("several.py"), "still.yaml", "dropout.yaml", folder=folder)
    return folder, [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in "01"]


def numbers(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


WHICH = ("steps", "best_step", "stopped_early")
CHOSEN = {"eval_steps": 2, "early_stopping": 3, "best_checkpoint": True}


@pytest.mark.parametrize(
    ("name", "settings"), [("whole", {}), ("alike", {"group_by_length": True}), ("chosen", CHOSEN)]
)
def test_two_train_what_one_does(
    name: str, settings: dict[str, Any], launched: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = launched
    content = recipe_of(folder / "still", folder / "data.csv", **settings)
    one = train(Recipe.parse({**content, "output": str(tmp_path / "one")}))
    two = Run(folder / name)
    assert two.metrics()["train_examples"] % 8 == 3
    before, after = numbers(one.folder), numbers(two.folder)
    for key, expected in before.items():
        torch.testing.assert_close(after[key], expected, rtol=1e-5, atol=1e-5)
    timed = {"seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "train_runtime"}
    timed |= {"train_samples_per_second", "train_steps_per_second", "total_flos"}
    assert len(one.history()) == len(two.history()) > 10
    for ours, theirs in zip(one.history(), two.history(), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - timed:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-4, abs=1e-5), key
    assert [one.metrics().get(key) for key in WHICH] == [two.metrics().get(key) for key in WHICH]
    for key in ("test_loss", "test_accuracy"):
        assert two.metrics()[key] == pytest.approx(one.metrics()[key], abs=1e-5)
    assert (one.metrics()["processes"], two.metrics()["processes"]) == (1, 2)


def test_one_tells_and_all_end_alike(launched: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (first, second) = launched
    codes = {name: code for name, (code, _) in first.items()}
    assert codes == {name: code for name, (code, _) in second.items()}
    assert codes == {
        "whole": 0, "alike": 0, "chosen": 0, "again": 2, "odd": 2, "typo": 2, "evaluate": 2, "missing": 2, "dropout": 0,
        "stopped": 143, "resumed": 0, "diverged": 3,
    }  # fmt: skip
    assert {name: told for name, (_, told) in second.items() if told} == {}
    told = {name: " ".join(told.split()) for name, (_, told) in first.items()}
    assert "holds a finished run" in told["again"]
    assert "train.batch_size = 7: is that of all 2 processes together" in told["odd"]
    assert "did you mean 'batch_size'?" in told["typo"]
    assert "runs in one process only" in told["evaluate"]
    assert "in the second process alone" in told["missing"]
    assert "stopped after step 6, and saved" in told["stopped"]
    assert told["whole"].count("accuracy") == 3  # two evaluations and the end
    assert "step 4 of 10: the training loss is nan" in told["diverged"]
    assert not (folder / "odd").exists()


def test_a_stopped_run_goes_on_as_if_it_had_not(launched: tuple[Path, list[dict[str, Any]]]) -> None:
    """With dropout, whose numbers each process draws for itself."""
    folder, _ = launched
    never, resumed = numbers(folder / "dropout"), numbers(folder / "stopped")
    assert never.keys() == resumed.keys()
    assert all(torch.equal(never[key], resumed[key]) for key in never)
    last = Run(folder / "dropout").last_checkpoint()
    assert last is not None
    states = [torch.load(last / f"rng_state_{rank}.pth", weights_only=False)["cpu"] for rank in (0, 1)]
    assert not torch.equal(*states)


def test_a_lone_process_goes_on_with_a_word(launched: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, _ = launched
    shutil.copytree(folder / "stopped", tmp_path / "stopped")
    run = Run(tmp_path / "stopped")
    run.metrics_file.unlink()
    recipe = run.recipe().model_copy(update={"output": str(run.folder)})
    screen = Console(file=io.StringIO(), width=80)
    train(recipe, resume=True, console=screen)
    assert "was saved by 2 processes, and goes on in 1" in " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("examples", "size", "count"), [(65, 8, 2), (7, 8, 2), (10, 4, 4), (12, 3, 3), (2, 4, 4)])
def test_parts_make_up_the_batches_of_one(examples: int, size: int, count: int) -> None:
    order = SequentialSampler(range(examples))
    shares = [list(Shares(order, size, rank, count)) for rank in range(count)]
    batches = [list(range(start, min(start + size, examples))) for start in range(0, examples, size)]
    assert [len(Shares(order, size, 0, count))] * count == [len(share) for share in shares] == [len(batches)] * count
    for number, batch in enumerate(batches):
        parts = [share[number] for share in shares]
        assert all(parts)
        assert [index for part in parts for index in part if index >= 0] == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    turns = [list(Turns(examples, size, rank, count)) for rank in range(count)]
    assert len({len(turn) for turn in turns}) == 1
    assert [batch for turn in zip(*turns, strict=True) for batch in turn][: len(batches)] == batches


def test_outputs_of_other_lengths_are_filled_up() -> None:
    first, second = torch.ones(2, 3, 4).numpy(), torch.zeros(1, 5, 4).numpy()
    long, (short,) = joined([(first, [first[:, 0]]), (second, [second[:, 0]])])
    assert long.shape == (3, 5, 4)
    assert (long[:2, :3] == 1).all()
    assert (long[:2, 3:] == -100).all()
    assert (long[2] == 0).all()
    assert short.shape == (3, 4)
