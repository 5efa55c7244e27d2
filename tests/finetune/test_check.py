"""`train --check`: what it tells agrees with the run, it stops at what stops a run, and it writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from structune import cli
from structune.doubt import DataWarning
from structune.duration import duration
from structune.errors import Diverged, UserError
from structune.finetune.check import Check, check
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train

MakeRecipe = Callable[..., Recipe]


def everything(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders are made here, and must be gone at the end."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_it_tells_what_the_run_takes_and_writes_nothing(recipe: MakeRecipe, tmp_path: Path, scratch: Path) -> None:
    """60 examples in batches of 8 are 8 steps an epoch."""
    settings = recipe("lora", max_steps=None, epochs=2, eval_steps=5, save_steps=1)
    before = everything(tmp_path)
    found = check(settings)
    assert everything(tmp_path) == before and list(scratch.iterdir()) == []
    run = train(settings)
    metrics, history = run.metrics(), run.history()
    assert found.steps == metrics["steps"] == 16
    assert found.evaluations == len([entry for entry in history if "eval_loss" in entry]) == 4
    assert (found.train_examples, found.eval_examples) == (metrics["train_examples"], metrics["eval_examples"])
    assert found.steps_taken == 6
    written = sum(path.stat().st_size for path in run.checkpoints.rglob("*.safetensors"))
    assert written < found.disk_bytes < 2**23
    for number in (found.seconds_per_step, found.seconds_per_evaluation, found.memory_bytes):
        assert number > 0


def test_the_time_is_that_of_all_steps_and_evaluations() -> None:
    found = Check(10, 10, 100, 3, 6, 0.5, 2.0, 1, "rss growth", 1)
    assert found.seconds == 56.0
    assert [duration(seconds) for seconds in (1.4, 119, 400, 9000)] == ["1 s", "119 s", "7 min", "2.5 h"]


def test_a_run_trains_after_it_as_if_it_had_not_been(recipe: MakeRecipe) -> None:
    check(recipe("lora", "other"))
    before = train(recipe("lora", "one")).metrics()["eval_loss"]
    assert before == train(recipe("lora", "two")).metrics()["eval_loss"]


def test_it_stops_at_what_stops_a_run(recipe: MakeRecipe, tmp_path: Path, reviews: Path) -> None:
    with pytest.raises(UserError, match="has no layer 'querry'"):
        check(recipe({"name": "lora", "target_modules": ["querry"]}))
    with pytest.raises(UserError, match="fp16"):
        check(recipe("lora", precision="fp16"))
    with pytest.raises(Diverged, match="step 2 of 6"):
        check(recipe("full", learning_rate=1e6, head_learning_rate=1e6, scheduler="constant", warmup=0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than a run's"):
        check(recipe("lora"))
    reviews.write_text(reviews.read_text() + "the same,positive\nthe same,negative\n" * 30)
    with pytest.warns(DataWarning, match="occurs with different labels"):
        check(recipe("lora", "elsewhere"))
    assert sorted(os.listdir(tmp_path)) == ["reviews.csv", "run"]


def test_the_command_shows_it(recipe_file: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    done = CliRunner().invoke(cli.app, ["train", str(recipe_file), "--check"])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "60 examples to train on, 20 held out, 2 classes" in shown
    assert "steps 6, of 0." in shown and "time about " in shown and "memory " in shown and "MB for checkpoints" in shown
    assert "nothing was written" in shown
    assert everything(tmp_path) == before
