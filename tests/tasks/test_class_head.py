"""A pretrained head that is matched with the classes: through training, resuming, evaluating and merging."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

from structune.errors import UserError
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import load_data
from structune.finetune.training import train
from structune.inspection.inspect import inspect_path
from structune.tasks.parts.matching.matching import Matching

OUTPUTS = 6
C3A = {"name": "c3a", "block_size": 8}


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head of six outputs, as if it had been trained for six other classes."""
    folder = tmp_path_factory.mktemp("classifier")
    names = {number: f"old {number}" for number in range(OUTPUTS)}
    torch.manual_seed(3)
    model = BertForSequenceClassification.from_pretrained(tiny_model, num_labels=OUTPUTS, id2label=names)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture
def matched(recipe: Callable[..., Recipe], classifier: Path) -> Callable[..., Recipe]:
    """`recipe` for that model; keywords `head` and `rematch` go to the task's section."""

    def make(method: Any = None, head: str = "match", rematch: str = "never", **train_section: Any) -> Recipe:
        content = recipe(method or C3A, **train_section).model_dump(mode="json", exclude_none=True)
        content["model"] = {"name": str(classifier)}
        content["task"] = {"name": "text-classification", "head": head, "rematch": rematch}
        return Recipe.parse(content)

    return make


def answers(folder: Path, run: Run) -> tuple[Any, Any]:
    """The untouched classifier's logits on the examples to train on, and their classes, one text at a time."""
    settings = run.recipe()
    data = load_data(settings.task, settings.data)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in data.train.inputs["text"]]
    return torch.stack(logits), [data.targets["classes"].index(label) for label in data.train.labels or []]


@pytest.mark.parametrize(
    ("method", "head"),
    [(C3A, "match"), (C3A, "bayes"), ({"name": "full"}, "match"), ({"name": "bitfit"}, "bayes")],
    ids=["c3a-match", "c3a-bayes", "full-match", "bitfit-bayes"],
)
def test_a_matched_model_trains_no_head_and_merges_into_an_ordinary_one(
    method: Any, head: str, matched: Callable[..., Recipe], classifier: Path, tmp_path: Path
) -> None:
    run = train(matched(method, head, max_steps=8, learning_rate=0.02))
    assert run.metrics()["trainable_head"] == 0 and run.metrics()["trainable_adapter"] > 0
    found = Matching.from_json(run.prepared())
    logits, classes = answers(classifier, run)
    counts = np.zeros((2, OUTPUTS), int)
    for row, target in zip(logits, classes, strict=True):
        counts[target, int(row.argmax())] += 1
    assert np.array_equal(found.counts, counts) and (counts.any(0).sum() > 2)

    merge(run.folder, tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    before = load_file(classifier / "model.safetensors")
    rows = torch.from_numpy(found.weights).float() @ before["classifier.weight"]
    torch.testing.assert_close(merged.classifier.weight.detach(), rows)
    if head == "match":
        chosen = found.weights.argmax(1)
        assert torch.equal(merged.classifier.weight, before["classifier.weight"][chosen])
        assert torch.equal(merged.classifier.bias, before["classifier.bias"][chosen])
    assert merged.config.id2label == {0: "negative", 1: "positive"} and merged.config.num_labels == 2
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        ["the film was superb", "dull"], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        torch.testing.assert_close(merged(**tokens).logits, load_run(run.folder).model(**tokens).logits)


def test_evaluation_shows_what_answers_for_what(matched: Callable[..., Recipe]) -> None:
    run = train(matched())
    result = evaluate(run.folder)
    table = dict(result.tables())["matching"]
    assert set(table) == {"negative", "positive"}
    assert all(row["source"].startswith("old ") and row["examples"] == 30 for row in table.values())
    assert json.loads(run.evaluation_file.read_text())["matching"] == table
    assert (run.folder / "matching.png") in result.figures and (run.folder / "matching.png").stat().st_size > 5000
    card = (run.adapter / "README.md").read_text()
    assert f"| negative | {table['negative']['source']} |" in card


def test_inspect_shows_it_as_well(matched: Callable[..., Recipe], tmp_path: Path) -> None:
    run = train(matched(max_steps=2))
    console = Console(file=io.StringIO(), width=200)
    inspect_path(run.folder, tmp_path, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for row in Matching.from_json(run.prepared()).rows(["negative", "positive"]).values():
        assert re.search(rf"{row['source']} +{row['answered']} +{row['examples']}", said)
    assert (tmp_path / "matching.png").stat().st_size > 5000


def test_lines_of_the_card_load_the_adapter_without_structune(
    matched: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    for head in ("match", "bayes"):
        run = train(matched({"name": "lora"}, head, max_steps=8, learning_rate=0.02), overwrite=True)
        card = (run.adapter / "README.md").read_text()
        code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(run.adapter))
        assert "structune" not in code.replace("structune_", "").replace(str(run.adapter), "")
        scope: dict[str, Any] = {}
        exec(code, scope)
        assert isinstance(scope["model"], PeftModel)
        tokens = scope["tokenizer"](["the film was superb", "dull"], padding=True, return_tensors="pt")
        with torch.inference_mode():
            expected = load_run(run.folder).model(**tokens).logits
            torch.testing.assert_close(scope["model"](**tokens).logits, expected)
        assert capsys.readouterr().out.strip() in ("negative", "positive")


@pytest.mark.parametrize(("head", "steps"), [("match", (8, 12)), ("bayes", (12,))], ids=["match", "bayes"])
def test_matching_anew_resumes_to_the_bit(
    head: str, steps: tuple[int, ...], matched: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Stopped within an epoch and between two, with answers that change from epoch to epoch."""
    settings = {
        "head": head,
        "rematch": "epoch",
        "max_steps": 20,
        "learning_rate": 0.1,
        "save_steps": 4,
        "keep_checkpoints": 30,
    }
    whole = train(matched(**settings, output="whole"))
    first, last = (json.loads((whole.folder / name).read_text()) for name in ("prepared.json", "adapter/prepared.json"))
    assert (first["epoch"], last["epoch"]) == (0, 2)
    assert first["counts"] != last["counts"] and first["weights"] != last["weights"]
    for step in steps:
        part = tmp_path / f"stopped-{step}"
        shutil.copytree(whole.folder, part)
        Run(part).metrics_file.unlink()
        shutil.rmtree(Run(part).adapter)
        for folder in Run(part).checkpoints.iterdir():
            if int(folder.name.rpartition("-")[2]) > step:
                shutil.rmtree(folder)
        resumed = train(matched(**settings, output=part.name), resume=True)
        assert resumed.prepared() == last
        ours, theirs = (load_file(run.adapter / "adapter_model.safetensors") for run in (resumed, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert resumed.metrics()["eval_loss"] == whole.metrics()["eval_loss"]
        assert evaluate(part).loss == whole.metrics()["eval_loss"]


def test_what_is_matched_anew_is_what_the_model_answers(matched: Callable[..., Recipe], classifier: Path) -> None:
    """Training for three epochs counts as the model of two epochs answers, with its whole head."""
    settings = {"head": "match", "rematch": "epoch", "learning_rate": 0.1, "save_steps": 8, "keep_checkpoints": 9}
    run = train(matched(**settings, max_steps=24))
    counted = Matching.from_json(run.prepared())
    adapted = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(classifier), run.checkpoints / "checkpoint-16"
    ).eval()
    counts = np.zeros((2, OUTPUTS), int)
    data = load_data(run.recipe().task, run.recipe().data)
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    for text, label in zip(data.train.inputs["text"], data.train.labels or [], strict=True):
        with torch.inference_mode():
            answer = int(adapted(**tokenizer(text, return_tensors="pt")).logits.argmax())
        counts[data.targets["classes"].index(label), answer] += 1
    assert counted.epoch == 2 and np.array_equal(counted.counts, counts)


def test_the_best_checkpoint_has_its_own_matching(matched: Callable[..., Recipe]) -> None:
    run = train(matched(rematch="epoch", learning_rate=0.1, max_steps=32, save_steps=8, best_checkpoint=True))
    assert evaluate(run.folder).loss == run.metrics()["eval_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_learning_rate": 1e-3}, "train.head_learning_rate: a head's rate of 0.001, and no head is trained here"),
        (
            {"learning_rates": {"c3a": {"head": 0.1}}},
            "train.learning_rates: a head's rate of 0.1, and no head is",
        ),
        ({"head": "new", "rematch": "epoch"}, "task: rematch: a new head is trained, not matched"),
        ({"head": "best"}, "task.head = 'best': expected 'new', 'match' or 'bayes'"),
    ],
)
def test_settings_that_do_not_go_with_a_kept_head(changes: Any, message: str, matched: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match=message):
        matched(**changes)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "head"}, "trains nothing"),
        ({"name": "lora", "target_modules": ["query", "classifier"]}, "adapts 'classifier.* of the pretrained head"),
    ],
)
def test_methods_that_a_kept_head_leaves_nothing_or_that_change_it(
    method: Any, message: str, matched: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(matched(method))
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_trained_head(matched: Callable[..., Recipe], tiny_model: Path, tmp_path: Path) -> None:
    wrong = matched().model_copy(update={"model": matched().model.model_copy(update={"name": str(tiny_model)})})
    with pytest.raises(UserError, match=r"has no trained head for Bert.*classifier\.bias.*use task\.head: new"):
        train(wrong)
    assert not (tmp_path / "run").exists()


def test_more_classes_than_outputs(matched: Callable[..., Recipe], reviews: Path, tmp_path: Path) -> None:
    rows = reviews.read_text().splitlines()
    reviews.write_text("\n".join([rows[0], *(f"{row} {n % 7}" for n, row in enumerate(rows[1:]))]))
    with pytest.raises(UserError, match="14 classes, but the pretrained head has 6 outputs"):
        train(matched())
    assert not (tmp_path / "run").exists()
    assert train(matched(head="bayes", max_steps=2)).metrics()["trainable_head"] == 0


def test_old_runs_and_new_heads_are_as_before(recipe: Callable[..., Recipe]) -> None:
    run = train(recipe())
    assert not run.prepared_file.exists() and run.prepared() == {}
    assert run.metrics()["trainable_head"] == 66
    assert "matching" not in dict(evaluate(run.folder).tables())


def test_images_are_matched_with_a_convnets_own_head(
    image_recipe: Callable[..., Recipe], tiny_convnet: Path, photos: Path, tmp_path: Path
) -> None:
    """With augmentation while training, and none where answers are counted."""
    task = {"head": "match", "rematch": "epoch", "augment": {"flip": True}}
    run = train(
        image_recipe({"name": "c3a", "num_splits": 2}, model={"name": str(tiny_convnet)}, task=task, learning_rate=0.05)
    )
    assert run.metrics()["trainable_head"] == 0
    found = Matching.from_json(run.prepared())
    assert found.epoch == 1 and found.counts.sum() == 30
    assert evaluate(run.folder).loss == run.metrics()["eval_loss"]
    merge(run.folder, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    pristine = load_file(tiny_convnet / "model.safetensors")
    assert torch.equal(merged["classifier.weight"], pristine["classifier.weight"][found.weights.argmax(1)])
    card = (run.adapter / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(run.adapter))
    scope: dict[str, Any] = {}
    exec(code.replace("some-image.jpg", str(photos / "left" / "00.png")), scope)
    with torch.inference_mode():
        expected = load_run(run.folder).model(**scope["inputs"]).logits
        torch.testing.assert_close(scope["model"](**scope["inputs"]).logits, expected)


@pytest.fixture(scope="module")
def vit_classifier(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ViT with a head of twelve outputs, in place of ImageNet's thousand."""
    folder = tmp_path_factory.mktemp("vit-classifier")
    torch.manual_seed(1)
    AutoModelForImageClassification.from_pretrained(tiny_vit, num_labels=12).save_pretrained(folder)
    AutoImageProcessor.from_pretrained(tiny_vit, backend="pil").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("structure", "rate"), [("toeplitz", 2e-3), ("vandermonde", 1e-2)])
def test_the_papers_recipe_runs_on_a_tiny_vit(
    structure: str, rate: float, vit_classifier: Path, photos: Path, tmp_path: Path
) -> None:
    """As it stands but for the model, the data and what fits them; rates and splits are those of Appendix B."""
    changes = ["data.hub=null", f"data.train={photos}", "data.image=image", "data.label=label"]
    changes += ["data.evaluation_split=null", "data.evaluation_examples=10", f"model.name={vit_classifier}"]
    changes += ["train.max_steps=4", "train.batch_size=8", "train.precision=fp32", "train.device=cpu"]
    changes += [f"output={tmp_path / 'run'}", f"method.structure={structure}", "method.pool_size=20"]
    run = train(Recipe.load("hydra-vit-cifar100", changes))
    settings: Any = run.recipe()
    assert (settings.train.learning_rate, settings.train.scheduler) == (rate, "onecycle")
    assert settings.train.head_learning_rate is None
    assert (settings.method.num_splits, settings.task.head) == (4, "match")
    metrics = run.metrics()
    assert (metrics["trainable_adapter"], metrics["trainable_head"]) == (2 * 2 * 20, 0)
    assert Matching.from_json(run.prepared()).counts.shape == (2, 12)
    assert all(
        ".q_proj." in name or ".v_proj." in name for name in load_file(run.adapter / "adapter_model.safetensors")
    )


def test_the_papers_recipe_says_what_the_paper_says() -> None:
    recipe: Any = Recipe.load("hydra-vit-cifar100").resolved()
    assert recipe.model.name == "google/vit-base-patch16-224" and recipe.train.max_steps == 5000
    assert 24 * recipe.method.pool_size == 9216
    rates = {name: rate.adapter for name, rate in recipe.train.learning_rates.items()}
    assert rates == {
        "hydra-circulant": 0.002, "hydra-toeplitz": 0.002, "hydra-hankel": 0.002, "hydra-vandermonde": 0.01,
        "hydra-low-rank": 0.004, "lora": 0.004,
    }  # fmt: skip
    splits = {name: recipe.with_method(name).method.num_splits for name in rates if name != "lora"}
    assert splits.pop("hydra-low-rank") == 1 and set(splits.values()) == {4}
