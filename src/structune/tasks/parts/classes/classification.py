"""What all tasks share that give each example one of several classes: names, checks, scores, answers."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from structune.data.examples import Examples
from structune.doubt import say
from structune.tasks.parts.classes.classes import (
    CLASS_FIGURES,
    are_class_names,
    check_labels,
    check_trained,
    label_names,
)
from structune.tasks.parts.classes.doubts import doubts_about_absent, majority
from structune.tasks.parts.classes.loss import ClassWeights, Weighted, class_weights
from structune.tasks.parts.classes.no_classes import combined_labels
from structune.tasks.task import Base, Metric, Outputs, Targets, Task


class Classification(Task, ABC):
    """One of several classes for each example. Labels are their names; the targets are all names (`classes`).

    The data section has a key `label`; `step` gives logits (examples, classes), and batches hold numbers of classes.

    `class_weights` and `label_smoothing` change the loss of training, and no other: a task that has them puts its
    batches together with `to_learn`. The weights are then part of the targets.
    """

    class_weights: ClassWeights = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    figures: ClassVar[tuple[str, ...]] = CLASS_FIGURES
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy", percent=True, range=(0, 1)),
        Metric("f1", "macro F1", range=(0, 1)),
        Metric("matthews", "Matthews correlation", range=(-1, 1)),
    )

    def targets(self, examples: Examples, data: Any, source: str) -> Targets:
        labels = examples.labels or []
        names = label_names(labels, source, data.label)
        say(combined_labels(labels, data.label))
        if self.class_weights is None:
            return {"classes": names}
        return {"classes": names, "class_weights": class_weights(self.class_weights, labels, names)}

    def are_targets(self, content: Any) -> bool:
        return are_class_names(content)

    def check(self, examples: Examples, targets: Targets, source: str) -> None:
        check_labels(examples.labels or [], targets["classes"], source)

    def check_left(self, train: Examples, targets: Targets, source: str) -> None:
        check_trained(train.labels or [], targets["classes"], source)

    def doubts_about_test(self, train: Examples, test: Examples, data: Any) -> Iterator[str]:
        return doubts_about_absent(train.labels or [], test.labels or [], "in the test part")

    def about(self, targets: Targets) -> str:
        return f"{len(targets['classes'])} classes"

    def baseline(self, held_out: Examples) -> Mapping[str, Any]:
        label, share = majority(held_out.labels or [])
        return {"words": f"always answering {label!r}", "value": share}

    def to_learn(self, collate: Any, base: Base) -> Any:
        """The collator of examples to train on, with what `step` needs to weigh and smooth."""
        if self.class_weights is None and not self.label_smoothing:
            return collate
        return Weighted(collate, base.known.get("class_weights") or [1.0] * len(base.known["classes"]))

    def step(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Outputs]:
        """The model's own loss and logits; where it is learned from, the weighted and smoothed cross-entropy.

        It is torch's: Σ w_y · loss / Σ w_y over the batch, in fp32.
        """
        if "class_weights" not in batch:
            return super().step(model, batch)
        from torch.nn.functional import cross_entropy

        seen = {key: value for key, value in batch.items() if key not in ("labels", "class_weights")}
        logits = model(**seen).logits
        weights = batch["class_weights"][0]
        loss = cross_entropy(logits.float(), batch["labels"], weights, label_smoothing=self.label_smoothing)
        return loss, logits

    def weight(self, batch: Mapping[str, Any]) -> float:
        """The examples, or the weights of their classes."""
        if "class_weights" not in batch:
            return super().weight(batch)
        return float(batch["class_weights"][0][batch["labels"]].sum())

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        from structune.tasks.parts.classes.confusion import confusion, scores

        return scores(confusion(outputs.argmax(-1), labels, len(targets["classes"])))

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        from structune.tasks.parts.classes.report import class_details

        return class_details(outputs, labels, targets["classes"])

    def draw(self, outputs: Outputs, labels: Any, targets: Targets, folder: Path) -> list[Path]:
        from structune.tasks.parts.classes.report import draw_classes

        return draw_classes(outputs, labels, targets["classes"], folder)

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        from structune.tasks.parts.classes.confusion import probabilities

        names = targets["classes"]
        return [
            {"prediction": names[int(row.argmax())]}
            | {f"probability {name}": float(share) for name, share in zip(names, row, strict=True)}
            for row in probabilities(outputs)
        ]


def class_options(targets: Targets) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a head with an output for each class, which knows their names."""
    names = targets["classes"]
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def class_numbers(examples: Examples, targets: Targets) -> list[int] | None:
    """The number of each example's class; None for examples without labels."""
    number = {name: index for index, name in enumerate(targets["classes"])}
    return None if examples.labels is None else [number[label] for label in examples.labels]


def described(what: str, targets: Targets) -> str:
    """Such as `text classification into 2 classes (…)`."""
    names = targets["classes"]
    return f"{what} into {len(names)} classes ({', '.join(f'`{name}`' for name in names[:20])})"
