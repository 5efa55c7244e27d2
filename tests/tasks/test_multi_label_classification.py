"""Any number of labels for a text: as people write them, learned one by one, answered as lists."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from structune.data.reading import read_table
from structune.data.table import Table
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.evaluate import load_run
from structune.finetune.merge import merge
from structune.finetune.predict import predict
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.tasks.multi_label_classification import MultiLabelClassification, MultiLabelData

from .whole_run import recipe_of, straight_and_resumed

TASK = MultiLabelClassification()
TELLING = {"good": "praise", "bad": "blame", "music": "sound", "actors": "cast"}


def rows(count: int = 120) -> list[tuple[str, list[str]]]:
    """Texts of some telling words, or none, with a label for each."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        chosen = rng.sample(list(TELLING), rng.choice([0, 1, 1, 2, 3]))
        words = 2 * chosen + rng.choices(["the", "film", "was", "story"], k=3)
        rng.shuffle(words)
        found.append((" ".join(words), sorted(TELLING[word] for word in chosen)))
    return found


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "lists.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows()))
    return path


def make(model: Path, file: Path, folder: Path, task: Any = "multi-label-classification", **data: Any) -> Recipe:
    section = {"train": str(file), "evaluation_examples": 30, **data}
    return recipe_of(task, section, model, folder, max_steps=60, learning_rate=0.03, head_learning_rate=0.03)


def test_from_lists_to_a_merged_model(
    tiny_model: Path, lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = straight_and_resumed(lambda name: make(tiny_model, lists, tmp_path / name), monkeypatch)
    assert run.targets() == {"classes": ["blame", "cast", "praise", "sound"]}
    baseline = run.metrics()["baseline"]
    assert result.scores["f1_micro"] > baseline["value"] + 0.05
    assert result.details["labels"].keys() == set(TELLING.values())
    pixels = np.asarray(Image.open(run.folder / "labels.png").convert("L"))
    assert 0.02 < (pixels < 200).mean() < 0.7

    said = predict(run.folder, ["good music", "the film was"])
    assert len(said) == 2
    tokens = AutoTokenizer.from_pretrained(tiny_model)("good music", return_tensors="pt")
    with torch.inference_mode():
        logits = load_run(run.folder).model(**tokens).logits[0]
    for name, logit in zip(run.targets()["classes"], logits.tolist(), strict=True):
        assert said[0][f"probability {name}"] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)
        assert (name in said[0]["prediction"]) == (logit >= 0)

    merge(run.folder, tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert model.config.problem_type == "multi_label_classification"
    with torch.inference_mode():
        torch.testing.assert_close(model(**tokens).logits[0], logits)


def test_the_loss_is_the_cross_entropy_of_each_decision() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": input_ids})

    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss, outputs = TASK.step(Fixed(), {"input_ids": logits, "labels": labels})
    expected = np.mean([np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1)), np.log(1 + np.exp(0.5)), np.log(2)])
    assert loss is not None and loss.item() == pytest.approx(expected, rel=1e-6)
    assert TASK.step(Fixed(), {"input_ids": logits})[0] is None
    assert torch.equal(outputs, logits)


def read(cells: list[Any], **options: Any) -> list[list[str]]:
    numbers = range(1, 1 + len(cells))
    table = Table("moods.csv", {"text": [f"text {row}" for row in numbers], "label": cells}, list(numbers))
    labels = TASK.examples(table, MultiLabelData(train="moods.csv", **options)).labels
    assert labels is not None
    return labels


@pytest.mark.parametrize(
    "cells",
    [
        [["b", "a"], [], ["a"]],
        ["['b', 'a']", "[]", "['a']"],
        ['["b", "a"]', "", '["a"]'],
        ["['b' 'a']", "[]", "['a']"],
        ["[b, a]", "[]", "[a]"],
        ["{'b', 'a'}", None, "('a',)"],
    ],
)
def test_lists_as_people_write_them(cells: list[Any]) -> None:
    assert read(cells) == [["a", "b"], [], ["a"]]


def test_numbers_and_separators() -> None:
    assert read([[4, 27], [4], []]) == [["27", "4"], ["4"], []]
    assert read(["[4, 27]", "[ 4 27 ]", "4"]) == [["27", "4"], ["27", "4"], ["4"]]
    assert read(["a|b", " b | c |", "", "a"], label_separator="|") == [["a", "b"], ["b", "c"], [], ["a"]]
    assert read(["very good, x", "x"], label_separator=",") == [["very good", "x"], ["x"]]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            ["joy|anger", "joy", "anger"],
            r"look like labels with '\|' .* such as 'joy\|anger'. Set data.label_sep",
        ),
        (["4,27", "4", "27", "3", "4,27,3"], "Set data.label_separator to ','"),
        (["0 1 1", "1 0 0"], "are rows of 0 and 1, such as '0 1 1'.* name them in data.labels"),
        ([[0, 1, 1], [0, 0, 1]], "are rows of 0 and 1"),
        ([["a"], [{"b": 1}]], r"1 of 2 rows of moods.csv hold no labels there, such as \"\[\{'b': 1\}\]\" \(line 2\)"),
    ],
)
def test_what_is_no_list_of_labels(cells: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(cells)


def test_a_column_of_zeros_and_ones_for_each_label(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,joy,anger\n" + "".join(f"text {n},{n % 2},{str(n % 3 == 0).lower()}\n" for n in range(60)))
    data = load_data(TASK, MultiLabelData(train=str(path), labels=["joy", "anger"]))
    assert data.targets == {"classes": ["joy", "anger"]}
    both = dict(zip(data.train.inputs["text"], data.train.labels or [], strict=True))
    for text, labels in both.items():
        number = int(text.split()[1])
        assert labels == ["anger"] * (number % 3 == 0) + ["joy"] * (number % 2)
    section = MultiLabelData(train=str(path), labels=["joy", "anger"])
    again = TASK.write(data.evaluation, tmp_path / "part", section)  # as studies do with their parts
    table = read_table(again, "train")
    assert TASK.examples(table, section).labels == data.evaluation.labels
    path.write_text(path.read_text().replace("text 7,1", "text 7,2"))
    with pytest.raises(UserError, match=r"the column 'joy' of .*x.csv has '2' \(line 9\), and is to have 0 and 1"):
        load_data(TASK, MultiLabelData(train=str(path), labels=["joy", "anger"]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["a"], "label": "b"}, "names columns of 0 and 1; remove label"),
        ({"labels": ["a", "a"]}, "name each column once"),
        ({"train": None, "embedded": "tweets"}, "the embedded data has one label a text"),
    ],
)
def test_sections_that_do_not_go_together(options: dict[str, Any], said: str) -> None:
    data = {"train": "x.csv"} | options
    content = {"task": "multi-label-classification", "data": {key: value for key, value in data.items() if value}}
    with pytest.raises(UserError, match=said):
        Recipe.parse(yaml.safe_load(yaml.safe_dump(content)))


def test_what_cannot_be_learned(lists: Path, tmp_path: Path) -> None:
    def data_of(labels: Any) -> Path:
        path = tmp_path / "x.jsonl"
        path.write_text("".join(json.dumps({"text": f"t {n}", "label": labels(n)}) + "\n" for n in range(60)))
        return path

    for labels, said in (
        (lambda n: [], "no row of .* has a label"),
        (lambda n: ["a", "b"], r"every row of .* has the labels \['a', 'b'\]; there is nothing to learn"),
        (lambda n: [f"a sentence {n}", "x"], "61 different labels in 60 rows"),
    ):
        with pytest.raises(UserError, match=said):
            load_data(TASK, MultiLabelData(train=str(data_of(labels))))
    with pytest.warns(DataWarning, match="every row has exactly one label; for that there is `task: text-class"):
        load_data(TASK, MultiLabelData(train=str(data_of(lambda n: ["ab"[n % 2]]))))
    data = load_data(TASK, MultiLabelData(train=str(lists)))
    held_out = data.evaluation
    other = held_out.labelled([["Praise"]] * len(held_out), held_out.groups, held_out.strata)
    with pytest.raises(UserError, match="the label 'Praise' is not in the training data"):
        TASK.check(other, data.targets, "other.jsonl")


def test_what_is_held_out_has_its_share_of_rare_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"t {n}", "label": ["common"] * (n % 4 > 0) + ["rare"] * (n % 20 == 0)}) + "\n"
            for n in range(400)
        )
    )
    data = load_data(TASK, MultiLabelData(train=str(path), evaluation_examples=100))
    rare = [sum("rare" in labels for labels in part.labels or []) for part in (data.train, data.evaluation)]
    assert rare == [15, 5]


def test_the_threshold_decides_what_is_answered() -> None:
    logits = np.log(np.array([[0.2, 0.9, 0.6]]) / (1 - np.array([[0.2, 0.9, 0.6]])))
    targets = {"classes": ["x", "y", "z"]}
    for threshold, answer in ((0.1, ["x", "y", "z"]), (0.5, ["y", "z"]), (0.7, ["y"]), (0.95, [])):
        assert MultiLabelClassification(threshold=threshold).answers(logits, targets)[0]["prediction"] == answer
