"""A task of an installed distribution, one file and no classification, goes wherever ours go; nothing else knows it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from structune import cli
from structune.finetune.evaluate import load_run
from structune.finetune.run_folder.run import Run
from structune.study import engine
from structune.study.results.files import Results

from ..study.in_turn import InTurn
from .toy import WordCount


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as a package of its own, which declares the task."""
    site = tmp_path / "site"
    (site / "outside_words").mkdir(parents=True)
    (site / "outside_words" / "__init__.py").touch()
    (site / "outside_words" / "task.py").write_text((Path(__file__).parent / "toy.py").read_text())
    info = site / "outside_words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-words\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[structune.tasks]\nword-count = outside_words.task:WordCount\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    rng = random.Random(0)
    words = ["a", "bird", "sang", "over", "every", "roof", "again"]
    rows = {" ".join(rng.choices(words, k=rng.randint(1, 9))): None for _ in range(90)}
    (tmp_path / "sentences.csv").write_text("said\n" + "".join(f"{row}\n" for row in rows))
    return {
        "task": {"name": "word-count", "width": 12},
        "model": {"name": "reader"},
        "data": {"train": "sentences.csv", "sentence": "said", "evaluation_examples": 17},
        "method": {"name": "c3a", "block_size": 4},
        "train": {
            "max_steps": 6, "batch_size": 8, "eval_batch_size": 5, "log_steps": 1, "save_steps": 2,
            "learning_rate": 0.3, "head_learning_rate": 0.1, "group_by_length": True, "device": "cpu",
        },
    }  # fmt: skip


def structune(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def write(content: dict[str, Any]) -> None:
    Path("words.yaml").write_text(yaml.safe_dump(content))


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "adapter" / "adapter_model.safetensors")


def test_it_goes_through_the_command_line(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(content)
    structune("train", "words.yaml", "--set", "output=whole")
    monkeypatch.setenv("WORD_COUNT_STOPS_AFTER", "2")
    structune("train", "words.yaml", "--set", "output=stopped", code=143)
    monkeypatch.delenv("WORD_COUNT_STOPS_AFTER")
    assert Run(Path("stopped")).last_checkpoint() == Path("stopped/checkpoints/checkpoint-3")
    structune("train", "stopped/recipe.yaml", "--resume")
    one, other = weights("whole"), weights("stopped")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    metrics = Run(Path("whole")).metrics()
    assert metrics["trainable_adapter"] == 2 * 3 * 12
    assert metrics["trainable_head"] == 12 + 1
    assert metrics["targets"].keys() == {"mean", "scale"}
    assert "root mean square error" in structune("evaluate", "whole")
    scored = json.loads(Path("whole/evaluation.json").read_text())
    assert scored["rmse"] == pytest.approx(metrics["eval_rmse"], abs=1e-6)
    learned = load_run("whole")
    fresh = WordCount(width=12).load(learned.recipe.model, learned.targets, 0).model
    assert (learned.model.first.weight - fresh.first.weight).abs().max() == 0
    update = learned.model.base_model.model.first.get_delta_weight("default")
    assert update.norm() > 1e-3
    assert "counting words" in Path("whole/adapter/README.md").read_text()
    assert "2 layers" in structune("inspect", "whole")

    said = ["a bird sang over every roof", "again", "a roof"]
    Path("new.jsonl").write_text("".join(json.dumps({"n": n, "said": line}) + "\n" for n, line in enumerate(said)))
    structune("predict", "whole", "new.jsonl", "--out", "answers.jsonl")
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [(answer["n"], answer["said"]) for answer in answers] == list(enumerate(said))
    for answer in answers:
        with torch.inference_mode():
            number = float(learned.model(torch.tensor([list(answer["said"].encode())]))[0])
        expected = number * learned.targets["scale"] + learned.targets["mean"]
        assert answer["words"] == pytest.approx(expected, rel=1e-5)

    structune("merge", "whole", "--out", "merged")
    stored = torch.load("merged/model.pt")
    torch.testing.assert_close(stored["first.weight"], fresh.first.weight + update, rtol=0, atol=1e-6)
    plain = WordCount(width=12)._model()
    plain.load_state_dict(stored)
    letters = torch.tensor([list(b"a bird sang")])
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(letters)[0], learned.model(letters)[0], rtol=1e-5, atol=1e-6)


def test_methods_are_compared_on_it(content: dict[str, Any]) -> None:
    content["train"]["max_steps"] = 3
    write(content)
    structune("compare", "words.yaml", "--methods", "full", "--out", "out")
    page = Path("out/comparison.md").read_text()
    assert "| root mean square error |" in page
    assert "Less root mean square error is better." in page
    assert Path("out/comparison.png").stat().st_size > 1000
    full = Run(Path("out/full"))
    assert full.metrics()["trainable_adapter"] == 256 * 12 + 2 * (12 * 12 + 12)
    assert full.last_checkpoint() == Path("out/full/checkpoints/checkpoint-3")
    structune("merge", "out/full", "--out", "merged")


def test_rates_are_searched_on_it_and_the_least_error_is_best(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Workers", InTurn)
    task = {key: content[key] for key in ("task", "data")} | {"validation_examples": 15}
    task["train"] = {key: content["train"][key] for key in ("batch_size", "device")} | {"max_steps": 2}
    plan = {
        "name": "words", "seeds": [0], "rates": [0.001, 0.3], "further_rates": 0, "model": content["model"],
        "tasks": {"words": task}, "methods": [{"label": "c3a", "method": content["method"]}],
    }  # fmt: skip
    Path("study.yaml").write_text(yaml.safe_dump(plan))
    structune("study", "study.yaml", "--out", "results", "--work", "work")
    found = Results(Path("results")).all()
    best = min(found, key=lambda result: result["validation"]["rmse"])
    assert len({result["validation"]["rmse"] for result in found}) == 2
    assert [result["rate"] for result in found if result["test"]] == [best["rate"]]
    assert best["test"]["examples"] == 17
    structune("study", "study.yaml", "--out", "results", "--work", "other")  # the results are known again
    Path("page.md").write_text("<!-- words -->\n<!-- end of words -->\n")
    structune("study", "study.yaml", "--out", "results", "--page", "page.md")
    assert "**words**, root mean square error on the test part" in Path("page.md").read_text()


def test_what_its_model_cannot_do_is_said(content: dict[str, Any]) -> None:
    write(content)
    found = structune("train", "words.yaml", "--set", "train.gradient_checkpointing=true", code=2)
    assert "Reader cannot compute its layers again" in found
    assert not Path("runs").exists()
