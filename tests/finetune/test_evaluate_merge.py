"""A saved run, loaded afresh: the same numbers, and the same outputs once merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train
from structune.tasks.text_classification import TextClassification

METHODS: list[dict[str, Any]] = [
    {"name": "c3a", "block_size": 8},
    {"name": "hydra", "structure": "toeplitz", "pool_size": 24},
    {"name": "lora"},
    {"name": "head"},
    {"name": "full"},
]


@pytest.fixture(params=METHODS, ids=lambda method: method["name"])
def run(request: pytest.FixtureRequest, recipe: Callable[..., Recipe]) -> Run:
    """A run with weights that moved."""
    return train(recipe(request.param, max_steps=12, learning_rate=0.02, head_learning_rate=0.02))


def test_evaluation_equals_the_end_of_training(run: Run) -> None:
    result = evaluate(run.folder)
    metrics = run.metrics()
    assert tuple(result.scores.values()) == tuple(metrics[f"eval_{key}"] for key in ("accuracy", "f1", "matthews"))
    assert result.loss == metrics["eval_loss"]
    assert result.examples == 20
    assert sum(row["examples"] for row in result.details["classes"].values()) == 20
    assert json.loads(run.evaluation_file.read_text())["accuracy"] == result.scores["accuracy"]


def test_merged_model_needs_nothing_else_and_says_the_same(run: Run, tmp_path: Path) -> None:
    difference = merge(run.folder, tmp_path / "merged")
    assert difference < 1e-5
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    tokens = tokenizer(["the film was superb", "a dull story"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(model(**tokens).logits, load_run(run.folder).model(**tokens).logits)


def test_what_an_evaluation_draws_is_the_runs_own(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    settings = recipe({"name": "head"})
    run = train(settings)
    assert not (run.folder / "confusion.png").exists()
    result = evaluate(run.folder)
    assert [path.relative_to(run.folder).name for path in result.figures] == ["confusion.png", "calibration.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in result.figures)
    assert dict(result.numbers()).keys() == {"expected calibration error"}
    (run.folder / ".confusion.png.ab12cd34").write_bytes(b"of a killed process")
    (run.folder / "mine.png").write_bytes(b"of the user")
    train(settings, overwrite=True)
    assert not list(run.folder.glob("*co*n.png*")) + list(run.folder.glob(".co*"))
    assert (run.folder / "mine.png").exists()


def test_a_figure_that_is_not_drawn_any_more_goes(recipe: Callable[..., Recipe], monkeypatch: Any) -> None:
    run = train(recipe({"name": "head"}))
    evaluate(run.folder)
    monkeypatch.setattr(TextClassification, "draw", lambda *_: [])
    assert evaluate(run.folder).figures == []
    assert not (run.folder / "confusion.png").exists()


def test_a_folder_that_takes_no_figure_is_told_and_the_scores_are_there(
    recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe({"name": "head"}))
    (run.folder / "confusion.png").mkdir()
    result = evaluate(run.folder, console=Console())
    assert result.figures == []
    assert result.examples == 20
    assert "cannot be written" in capsys.readouterr().out


def test_evaluation_of_another_file(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nthe film was good,positive\na weak end,negative\nthe music,negative\n")
    result = evaluate(run.folder, other)
    assert result.examples == 3
    assert result.details["classes"]["negative"]["examples"] == 2
    other.write_text("text,label\nthe film was good,Positive\n")
    with pytest.raises(UserError, match="the label 'Positive' is not in the training data"):
        evaluate(run.folder, other)


def test_texts_of_another_file_that_are_cut_are_told(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = train(recipe({"name": "head"}))
    other = tmp_path / "other.csv"
    other.write_text(f"text,label\n{'good ' * 70},positive\na weak end,negative\n")
    with pytest.warns(DataWarning, match="1 of 2 texts are cut after 64 tokens; the longest has 72"):
        evaluate(run.folder, other)


class TestDamage:
    """What is said of runs that do not load."""

    @pytest.fixture
    def lora(self, recipe: Callable[..., Recipe]) -> Run:
        return train(recipe("lora", max_steps=2))

    @pytest.mark.parametrize("method", ["lora", "head", "c3a"])
    def test_truncated_weights(self, method: str, recipe: Callable[..., Recipe]) -> None:
        section = {"name": method, "block_size": 8} if method == "c3a" else method
        run = train(recipe(section, max_steps=2))
        weights = run.adapter / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
        with pytest.raises(UserError, match=r"adapter_model\.safetensors: cannot be loaded"):
            evaluate(run.folder)
        assert not run.evaluation_file.exists()

    def test_weights_of_another_model(self, recipe: Callable[..., Recipe]) -> None:
        run = train(recipe("head", max_steps=2))
        save_file({"other": torch.zeros(2)}, run.adapter / "adapter_model.safetensors")
        with pytest.raises(UserError, match="holds other tensors than head trains"):
            evaluate(run.folder)

    def test_not_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="not a run folder"):
            evaluate(tmp_path)

    def test_unfinished_run(self, lora: Run) -> None:
        lora.metrics_file.unlink()
        with pytest.raises(UserError, match="not finished; continue with"):
            merge(lora.folder, lora.folder / "merged")

    def test_merge_does_not_overwrite(self, lora: Run, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").write_text("mine")
        with pytest.raises(UserError, match="holds something already"):
            merge(lora.folder, tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]

    def test_weights_that_are_not_numbers_are_not_merged(self, lora: Run, tmp_path: Path) -> None:
        weights = lora.adapter / "adapter_model.safetensors"
        tensors = load_file(weights)
        name = next(name for name in tensors if "lora_A" in name)
        tensors[name][0, 0] = torch.nan
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(UserError, match="cannot be merged"):
            merge(lora.folder, tmp_path / "merged")
        assert not list(tmp_path.glob("*merged*"))
