"""Tasks that make something step by step: what they show while training, and images that they answer with."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from structune import cli
from structune.data.examples import Examples
from structune.errors import UserError
from structune.finetune.evaluate import evaluate
from structune.finetune.predict import Predictor, write_predictions
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train
from structune.tasks import registry
from structune.tasks.task import Base, Targets
from structune.testing.tasks import stopped_after

from ..tasks.toy import WordCount

SENTENCES = [" ".join(["bird"] * (n % 9 + 1) + [f"w{n}"]) for n in range(60)]


class Bars(WordCount):
    """Draws what it counts in three sentences as the width of a line of text, and answers with images."""

    name: Literal["bars"] = "bars"  # type: ignore[assignment]
    shown_figures: ClassVar[tuple[str, ...]] = ("bars.txt",)
    makes_images: ClassVar[bool] = True

    def shown_at(self, steps: int) -> Sequence[int]:
        return (0, steps // 2, steps)

    def show(self, model: Any, base: Base, targets: Targets, step: int, folder: Path) -> Mapping[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(1000)  # whatever it draws, training draws as it did
        file = folder / self.shown_figures[0]
        before = [line for line in file.read_text().splitlines() if int(line.split()[0]) < step] if step else []
        number = float(model(torch.tensor([list(b"a bird sang")]))[0])
        file.write_text("\n".join([*before, f"{step} {number}"]) + "\n")
        return {"shown_number": number}

    def respond(
        self, model: Any, base: Base, examples: Examples, targets: Targets, data: Any
    ) -> Iterator[dict[str, Any]]:
        assert not model.training
        for sentence in examples.inputs["sentence"]:
            assert not torch.is_grad_enabled()
            number = float(model(torch.tensor([list(sentence.encode())]))[0])
            yield {"bar": Image.new("RGB", (len(sentence), 4), "red"), "length": number}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.TASKS, "_registered", {})
    registry.register(Bars)


def recipe(folder: Path, name: str = "run") -> Recipe:
    (folder / "sentences.csv").write_text("sentence\n" + "\n".join(SENTENCES) + "\n")
    return Recipe.parse(
        {
            "task": "bars",
            "model": {"name": "reader"},
            "data": {"train": str(folder / "sentences.csv"), "evaluation_examples": 12},
            "method": {"name": "c3a", "block_size": 4},
            "output": str(folder / name),
            "train": {"max_steps": 6, "batch_size": 8, "learning_rate": 0.1, "device": "cpu"},
        }
    )


def lines(run: Run) -> list[list[str]]:
    return [line.split() for line in (run.folder / "bars.txt").read_text().splitlines()]


def test_what_is_shown_before_while_and_after(tmp_path, monkeypatch) -> None:
    run = train(recipe(tmp_path))
    assert [step for step, _ in lines(run)] == ["0", "3", "6"]
    assert len({number for _, number in lines(run)}) == 3
    assert run.metrics()["shown_number"] == pytest.approx(float(lines(run)[-1][1]))
    logged = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert [entry["step"] for entry in logged if "shown_number" in entry] == [0, 3, 6]
    evaluate(run.folder)
    assert len(lines(run)) == 3

    stopped_after(4, recipe(tmp_path, "stopped"), monkeypatch)
    assert [step for step, _ in lines(Run(tmp_path / "stopped"))] == ["0", "3"]
    resumed = train(recipe(tmp_path, "stopped"), resume=True)
    assert lines(resumed) == lines(run)

    with monkeypatch.context() as patch:
        patch.setattr(Bars, "shown_at", lambda self, steps: ())
        silent = train(recipe(tmp_path, "silent"))
    assert not (silent.folder / "bars.txt").exists()
    for other in (resumed, silent):
        one, two = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, other))
        assert all(torch.equal(one[name], two[name]) for name in one)

    again = train(recipe(tmp_path), overwrite=True)  # what was shown is the run's own, and goes with it
    assert [step for step, _ in lines(again)] == ["0", "3", "6"]


def test_images_go_beside_the_table(tmp_path, monkeypatch) -> None:
    run = train(recipe(tmp_path))
    (tmp_path / "new.csv").write_text("sentence\na bird\nsang over\nthe roof\n")
    out = tmp_path / "made.csv"
    assert write_predictions(run.folder, str(tmp_path / "new.csv"), out) == 3
    rows = list(csv.DictReader(out.open()))
    assert [row["bar"] for row in rows] == ["made/000001.png", "made/000002.png", "made/000003.png"]
    for row in rows:
        assert Image.open(tmp_path / row["bar"]).size == (len(row["sentence"]), 4)
    assert len({row["length"] for row in rows}) == 3
    answered = Predictor(run.folder)(["a bird"])
    assert answered[0]["bar"].size == (6, 4)

    out.unlink()
    with pytest.raises(UserError, match="'.*made', which is there already; use --overwrite"):
        write_predictions(run.folder, "a bird", out)
    assert write_predictions(run.folder, "a bird", out, overwrite=True) == 1

    def fails(self: Any, *arguments: Any) -> Iterator[dict[str, Any]]:
        yield {"bar": Image.new("RGB", (3, 3))}
        raise UserError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(Bars, "respond", fails)
        with pytest.raises(UserError, match="no more"):
            write_predictions(run.folder, ["a", "b"], tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()
    assert not (tmp_path / "other").exists()

    done = CliRunner().invoke(cli.app, ["predict", str(run.folder), "a bird"])
    assert done.exit_code == 2
    assert "give --out FILE" in " ".join(done.output.split())
