"""Numbers learned from texts: in any scale, in the data's own units, in the merged model too."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification
from transformers import pipeline as pipeline_of

from structune.data.table import Table
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.evaluate import load_run
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import load_data
from structune.finetune.training import train
from structune.tasks.parts.numbers.own_units import fold_units
from structune.tasks.text_regression import TextRegression

from .whole_run import recipe_of, straight_and_resumed

TASK = TextRegression()
WORDS = {"good": 1, "great": 2, "superb": 3, "bad": -1, "awful": -2, "weak": -3, "film": 0, "story": 0}


def write(path: Path, scale: float = 1.0, shift: float = 0.0, rows: int = 80) -> Path:
    """Sums of the values of words, scaled."""
    rng = random.Random(0)
    lines = ["text,label"]
    for _ in range(rows):
        words = rng.choices(list(WORDS), k=4)
        lines.append(f"{' '.join(words)},{scale * sum(map(WORDS.__getitem__, words)) + shift}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make(
    model: Path, tmp_path: Path, name: str = "run", scale: float = 1.0, shift: float = 0.0, **options: Any
) -> Recipe:
    file = write(tmp_path / f"{scale}.csv", scale, shift)
    data = {"train": str(file), "evaluation_examples": 20}
    return recipe_of("text-regression", data, model, tmp_path / name, **options)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in units far from 1."""
    folder = tmp_path_factory.mktemp("regression")
    return train(make(tiny_model, folder, scale=1000, shift=5e4, max_steps=40))


def test_resumed_bit_by_bit_scored_and_drawn(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed, result = straight_and_resumed(lambda name: make(tiny_model, tmp_path, name), monkeypatch)
    assert [path.name for path in result.figures] == ["scatter.png"]
    pixels = np.asarray(Image.open(resumed.folder / "scatter.png").convert("L"))
    assert min(pixels.shape) >= 600 and 0.005 < (pixels < 200).mean() < 0.5
    assert "standardised" in (resumed.adapter / "README.md").read_text(encoding="utf-8")


def test_it_learns_in_the_datas_own_units(run: Run) -> None:
    lines = Path(str(run.recipe().data.train)).read_text().splitlines()[1:]
    numbers = [float(line.rpartition(",")[2]) for line in lines]
    assert run.targets()["mean"] == pytest.approx(statistics.fmean(numbers))
    assert run.targets()["deviation"] == pytest.approx(statistics.pstdev(numbers))
    metrics = run.metrics()
    assert metrics["eval_pearson"] > 0.6
    assert 100 < metrics["eval_rmse"] < statistics.pstdev(numbers)
    assert metrics["eval_rmse"] ** 2 == pytest.approx(metrics["eval_loss"] * run.targets()["deviation"] ** 2, rel=1e-4)


def test_rates_mean_the_same_for_any_scale(tiny_model: Path, tmp_path: Path, run: Run) -> None:
    plain = train(make(tiny_model, tmp_path, max_steps=40))
    assert plain.metrics()["eval_pearson"] == pytest.approx(run.metrics()["eval_pearson"], abs=1e-3)
    assert 1000 * plain.metrics()["eval_rmse"] == pytest.approx(run.metrics()["eval_rmse"], rel=1e-3)


def test_the_merged_model_says_the_datas_own_units(run: Run, tmp_path: Path) -> None:
    merge(run.folder, tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    texts = ["superb great film", "awful weak story"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**tokens).logits[:, 0]
        standardised = load_run(run.folder).model(**tokens).logits[:, 0]
    wanted = [answer["prediction"] for answer in TASK.answers(standardised.numpy(), run.targets())]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert found[0] > 5e4 > found[1]
    said = pipeline_of("text-classification", model=model, tokenizer=tokenizer)(texts)
    assert [answer["score"] for answer in said] == pytest.approx(wanted, rel=1e-5)


def test_a_head_that_cannot_hold_the_units_is_told() -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, num_labels=1, pad_token_id=0)
    model = GPT2ForSequenceClassification(config).eval()
    batch = {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 8]])}
    before = TASK.step(model, batch)[1]
    with pytest.warns(DataWarning, match=r"y \* 2 \+ 7 is what they mean; both stand in its config.json"):
        TASK.finish(model, {"mean": 7.0, "deviation": 2.0}, batch)
    assert (model.config.target_mean, model.config.target_deviation) == (7.0, 2.0)
    assert torch.equal(TASK.step(model, batch)[1], before)


def test_what_follows_the_last_layer_is_noticed() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1)
    inputs = torch.randn(4, 3)
    model = torch.nn.Sequential(layer, torch.nn.Tanh())
    before = model(inputs)
    assert not fold_units(model, 3.0, 2.0, lambda: model(inputs)[:, 0])
    assert torch.equal(model(inputs), before)
    assert fold_units(layer, 3.0, 2.0, lambda: layer(inputs)[:, 0])
    assert not torch.allclose(layer(inputs), before)


def read(labels: list[Any]) -> Any:
    rows = range(1, 1 + len(labels))
    table = Table("scores.jsonl", {"text": [f"text {row}" for row in rows], "label": labels}, list(rows))
    return TASK.examples(table, TASK.data_section(train="scores.jsonl")).labels


def test_numbers_as_people_write_them() -> None:
    assert read([1, 2.5, "3", " -4.5 "]) == [1, 2.5, 3, -4.5]
    assert read(["50%", "7.5%"]) == [50, 7.5]
    assert read(["3/10", "10/10"]) == [3, 10]
    assert read(["1,5", "2,125", "0,125"]) == [1.5, 2.125, 0.125]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, "high", 3, "low"], r"2 of 4 rows of scores.jsonl hold no number there, such as 'high' \(line 2, 4\)"),
        ([1.0, True], r"1 of 2 rows of scores.jsonl hold no number there, such as 'True' \(line 2\)"),
        ([1.0, float("inf")], "such as 'inf'"),
        ([1.0, [2.0]], r"such as '\[2.0\]'"),
        (["1.0", "nan"], "such as 'nan'"),
        (["1,234", "5,678"], "'1,234' .* may be 1.234 or 1234; write numbers with a point"),
        (["1,234", "0.5"], "'1,234' .* may be 1.234 or 1234"),
        (["5%", "5/10", "3"], "are measured differently"),
        (["a", "b"], "`task: text-classification`"),
    ],
)
def test_what_is_no_number_is_named_by_row_and_value(labels: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(labels)


def test_one_number_only_and_two_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {n},3\n" for n in range(20)))
    with pytest.raises(UserError, match="every row of .*x.csv has the number 3; there is nothing to learn"):
        load_data(TASK, TASK.data_section(train=str(path)))
    path.write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    with pytest.warns(DataWarning, match="only the numbers 0 and 1 occur; for classes there is `task: text-class"):
        load_data(TASK, TASK.data_section(train=str(path)))


def test_what_is_held_out_has_its_share_of_each_quantile(tmp_path: Path) -> None:
    data = load_data(TASK, TASK.data_section(train=str(write(tmp_path / "x.csv", rows=400)), evaluation_examples=100))
    held_out, left = (np.array(part.labels) for part in (data.evaluation, data.train))
    assert abs(np.quantile(held_out, [0.1, 0.5, 0.9]) - np.quantile(left, [0.1, 0.5, 0.9])).max() <= 1
    assert len(set(data.train.strata)) == 10
    few = load_data(TASK, TASK.data_section(train=str(write(tmp_path / "y.csv", rows=30)), evaluation_examples=5))
    assert len(few.evaluation) == 5


def test_rows_that_are_trained_on_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv")
    data = TASK.data_section(train=str(path), evaluation=str(path))
    with pytest.warns(DataWarning, match="all 80 rows .* among those to train on: the score says nothing about new"):
        load_data(TASK, data)


def test_damaged_targets_are_not_taken(run: Run) -> None:
    content = json.loads(run.metrics_file.read_text())
    assert TASK.are_targets(content["targets"])
    for wrong in ({}, {"mean": 1.0}, {"mean": 1.0, "deviation": 0.0}, {"mean": None, "deviation": 1.0}, None):
        assert not TASK.are_targets(wrong)
