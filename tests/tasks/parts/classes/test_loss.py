"""Weights of classes and label smoothing: the loss of training is torch's, that of evaluating stays the plain one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import log_softmax

from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.finetune.training import train
from structune.tasks.parts.classes.loss import Weighted, class_weights
from structune.tasks.task import Base
from structune.tasks.text_classification import TextClassification

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 3.0]], dtype=torch.float64).float()
LABELS = torch.tensor([0, 2, 1])


class Fixed(torch.nn.Module):
    """Whatever it sees, the same logits; its own loss is the plain one."""

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        loss = None if labels is None else torch.nn.functional.cross_entropy(LOGITS, labels)
        return type("Output", (), {"logits": LOGITS, "loss": loss})


def learned(task: TextClassification, weights: list[float] | None) -> float:
    """The loss of a batch that is trained on."""
    targets: dict[str, Any] = {"classes": ["a", "b", "c"]} | ({} if weights is None else {"class_weights": weights})
    collate = task.to_learn(lambda rows: {"input_ids": LABELS, "labels": LABELS}, Base(None, None, known=targets))
    loss, outputs = task.step(Fixed(), collate([{}, {}, {}]))
    assert outputs is LOGITS
    return float(loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.25]])
def test_the_loss_by_hand(weights: list[float] | None, smoothing: float) -> None:
    """Σ over examples of (1 − ε) w_y (−log p_y) + ε/K Σ_k w_k (−log p_k), by Σ w_y."""
    task = TextClassification(class_weights=None if weights is None else "balanced", label_smoothing=smoothing)
    w = weights or [1.0, 1.0, 1.0]
    log = log_softmax(LOGITS.double(), -1).tolist()
    total = weight = 0.0
    for row, label in enumerate(LABELS.tolist()):
        smooth = sum(w[k] * -log[row][k] for k in range(3))
        total += (1 - smoothing) * w[label] * -log[row][label] + smoothing / 3 * smooth
        weight += w[label]
    assert learned(task, weights) == pytest.approx(total / weight, rel=1e-6)


def test_what_is_not_learned_from_has_the_plain_loss() -> None:
    task = TextClassification(class_weights="balanced", label_smoothing=0.3)
    loss, _ = task.step(Fixed(), {"input_ids": LABELS, "labels": LABELS})
    assert loss == torch.nn.functional.cross_entropy(LOGITS, LABELS)
    assert task.step(Fixed(), {"input_ids": LABELS})[0] is None


def test_balanced_weights_against_scikit_learn() -> None:
    labels = ["b"] * 7 + ["a"] * 2 + ["c"]
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(labels))
    assert class_weights("balanced", labels, ["a", "b", "c"]) == pytest.approx(list(expected))
    assert class_weights({"c": 3}, labels, ["a", "b", "c"]) == [1, 1, 3]
    with pytest.raises(UserError, match=r"task.class_weights: there is no class 'B'; the data have 'a', 'b', 'c'"):
        class_weights({"B": 2.0}, labels, ["a", "b", "c"])


def test_the_section_and_its_mistakes(reviews: Path) -> None:
    def parsed(**task: Any) -> Recipe:
        return Recipe.parse({"task": {"name": "text-classification", **task}, "data": {"train": str(reviews)}})

    assert parsed(class_weights={0: 2, "x": 0.5}).task.class_weights == {"0": 2, "x": 0.5}  # type: ignore[attr-defined]
    for wrong, said in (
        ({"class_weights": {"x": 0}}, "task.class_weights: the weight of 'x' is 0; give a number above 0"),
        ({"class_weights": {True: 2}}, "True is no name of a class; put it in quotes"),
        ({"class_weights": "even"}, "'even' is neither balanced nor a weight for each class"),
        ({"label_smoothing": 1.0}, "task.label_smoothing = 1.0"),
    ):
        with pytest.raises(UserError, match=said):
            parsed(**wrong)
    known = parsed(class_weights={"positive": 3.0})
    assert load_data(known.task, known.data).targets["class_weights"] == [1.0, 3.0]


def test_a_run_learns_with_them_and_is_scored_without(recipe: Callable[..., Recipe]) -> None:
    plain = recipe("head", "plain")
    task = TextClassification(class_weights={"positive": 9.0}, label_smoothing=0.2)
    first = train(plain).metrics()
    weighed = train(plain.model_copy(update={"task": task, "output": f"{plain.output}-weighed"}))
    assert weighed.recipe().task == task
    assert weighed.targets() == {"classes": ["negative", "positive"], "class_weights": [1.0, 9.0]}
    second = weighed.metrics()
    assert second["train_loss"] != first["train_loss"]
    rate = recipe("head", "still", max_steps=1, learning_rate=1e-9, head_learning_rate=1e-9)
    still = [train(rate.model_copy(update={"task": t, "output": f"{rate.output}{n}"})).metrics() for n, t in
             enumerate((TextClassification(), task))]  # fmt: skip
    assert still[0]["eval_loss"] == pytest.approx(still[1]["eval_loss"], abs=1e-6)
    assert abs(still[0]["train_loss"] - still[1]["train_loss"]) > 1e-3


def test_what_else_a_collator_can_is_there() -> None:
    class Epochs:
        def begin_epoch(self, seed: int, epoch: int) -> tuple[int, int]:
            return seed, epoch

    assert Weighted(Epochs(), [1.0]).begin_epoch(3, 4) == (3, 4)  # type: ignore[arg-type]
    assert not hasattr(Weighted(lambda rows: {}, [1.0]), "begin_epoch")
    assert copy.copy(Weighted(dict, [1.0])).weights == [1.0]  # which asks for names before there are any
