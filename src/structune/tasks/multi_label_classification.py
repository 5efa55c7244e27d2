"""Several labels at once: any number of labels for a text or a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from structune.data.examples import Examples
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.classes.classes import are_class_names, check_labels, in_order
from structune.tasks.parts.classes.classification import class_options, described
from structune.tasks.parts.classes.doubts import (
    doubts_about_names,
    doubts_about_texts_alone,
    doubts_about_texts_of,
)
from structune.tasks.parts.labels.lists import indicated, label_lists
from structune.tasks.parts.made_up import made_up_label_lists
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.card import CLASS_OPTIONS, text_card
from structune.tasks.parts.text.task import TextTask
from structune.tasks.parts.text.texts import (
    LabelledTextData,
    encode_texts,
    load_text_model,
    made_up_inputs,
    refuse_headless,
    text_groups,
)
from structune.tasks.task import Base, CardNames, Metric, Outputs, Targets

if TYPE_CHECKING:
    from torch import Tensor, nn


class MultiLabelData(LabelledTextData):
    """Texts with any number of labels each, or none.

    They are in the column `label`: lists, texts of lists, or names with `label_separator` between them; or there is a
    column of 0 and 1 for each label, and `labels` names these columns.
    """

    labels: Annotated[list[str], Field(min_length=1)] | None = None
    label_separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> MultiLabelData:
        if self.embedded is not None:
            raise ValueError("the embedded data has one label a text; give train, a file, or hub")
        if self.labels is not None:
            for key in ("label", "label_separator"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"labels = {self.labels!r} names columns of 0 and 1; remove {key}")
            if len(set(self.labels)) < len(self.labels):
                raise ValueError(f"labels = {self.labels!r}: name each column once")
        return self


class MultiLabelClassification(TextTask):
    """Any number of labels for each text or pair of texts; the targets are all their names (`classes`).

    Each label is a decision of its own, learned by binary cross-entropy; it is answered where its probability is at
    least `threshold`.
    """

    name: Literal["multi-label-classification"] = "multi-label-classification"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    data_section: ClassVar[type[MultiLabelData]] = MultiLabelData
    figures: ClassVar[tuple[str, ...]] = ("labels.png",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("f1_micro", "micro F1", range=(0, 1)),
        Metric("f1_macro", "macro F1", range=(0, 1)),
        Metric("subset_accuracy", "subset accuracy", percent=True, range=(0, 1)),
    )

    def examples(self, table: Table, data: MultiLabelData) -> Examples:
        seen = self.inputs(table, data)
        if data.labels is not None:
            lists = indicated(table, data.labels)
        else:
            lists = label_lists(table, data.label, data.label_separator)
            refuse_headless(table, data)
        counts = Counter(label for labels in lists for label in labels)
        rarest = [min(labels, key=lambda label: (counts[label], label), default="") for labels in lists]
        return seen.labelled(lists, text_groups(table, data, seen.inputs), rarest)

    def targets(self, examples: Examples, data: MultiLabelData, source: str) -> Targets:
        if data.labels is not None:
            return {"classes": list(data.labels)}
        names = {label for labels in examples.labels or [] for label in labels}
        where = f"data.label = {data.label!r}"
        if not names:
            raise UserError(f"{where}: no row of {source} has a label; set data.label to the column of labels")
        if len(set(map(tuple, examples.labels or []))) == 1:
            raise UserError(f"{where}: every row of {source} has the labels {sorted(names)}; there is nothing to learn")
        if len(names) > max(20, len(examples) // 2):
            shown = ", ".join(repr(name[:30]) for name in sorted(names)[:4])
            raise UserError(
                f"{where}: {len(names)} different labels in {len(examples)} rows of {source} ({shown}, ...); that "
                f"looks like another column than the labels, or needs data.label_separator"
            )
        return {"classes": in_order(names)}

    def are_targets(self, content: Any) -> bool:
        return are_class_names(content)

    def check(self, examples: Examples, targets: Targets, source: str) -> None:
        check_labels([label for labels in examples.labels or [] for label in labels], targets["classes"], source)

    def doubts(self, train: Examples, held_out: Examples, data: MultiLabelData) -> Iterator[str]:
        yield from doubts_about_texts_of(train, held_out, data.text)
        lists = [*(train.labels or []), *(held_out.labels or [])]
        where = f"data.label = {data.label!r}" if data.labels is None else "data.labels"
        yield from doubts_about_names(
            [label for labels in train.labels or [] for label in labels],
            [label for labels in held_out.labels or [] for label in labels],
            where,
        )
        if all(len(labels) == 1 for labels in lists):
            yield f"{where}: every row has exactly one label; for that there is `task: text-classification`"

    def doubts_about_file(self, examples: Examples, data: MultiLabelData) -> Iterator[str]:
        return doubts_about_texts_alone(examples, data.text)

    def about(self, targets: Targets) -> str:
        return f"{len(targets['classes'])} labels"

    def baseline(self, held_out: Examples) -> Mapping[str, Any]:
        from structune.tasks.parts.labels.scores import best_constant

        names, value = best_constant(held_out.labels or [])
        return {"words": f"always answering {', '.join(map(repr, names[:5]))}", "value": value} if value else {}

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import AutoModelForSequenceClassification

        kind = "multi_label_classification"
        options = class_options(targets)
        return load_text_model(AutoModelForSequenceClassification, section, seed, problem_type=kind, **options)

    def encode(
        self, examples: Examples, base: Base, targets: Targets, data: MultiLabelData
    ) -> Sequence[Mapping[str, Any]]:
        rows = None
        if examples.labels is not None:
            rows = [[float(name in labels) for name in targets["classes"]] for labels in map(set, examples.labels)]
        return encode_texts(examples, base, data, rows)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """The mean binary cross-entropy of all decisions, in fp32, and the logits (examples, labels)."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits.float()
        labels = batch.get("labels")
        return (None if labels is None else binary_cross_entropy_with_logits(logits, labels.float())), logits

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        from structune.tasks.parts.labels.scores import present, scores

        return scores(present(outputs, self.threshold), labels > 0.5)

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        from structune.tasks.parts.labels.scores import per_label, present

        rows = per_label(present(outputs, self.threshold), labels > 0.5)
        return {"labels": dict(zip(targets["classes"], rows, strict=True))}

    def draw(self, outputs: Outputs, labels: Any, targets: Targets, folder: Path) -> list[Path]:
        from structune.tasks.parts.labels.bars import draw_labels

        scores = self.scores(outputs, labels, targets)
        title = ", ".join(f"{metric.title} {metric.text(scores[metric.key])}" for metric in self.metrics)
        return [draw_labels(self.details(outputs, labels, targets)["labels"], title, folder / self.figures[0])]

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        from structune.tasks.parts.labels.scores import present, probabilities

        names = targets["classes"]
        return [
            {"prediction": [name for name, there in zip(names, found, strict=True) if there]}
            | {f"probability {name}": float(share) for name, share in zip(names, shares, strict=True)}
            for found, shares in zip(present(outputs, self.threshold), probabilities(outputs), strict=True)
        ]

    def write(self, examples: Examples, path: Path, data: MultiLabelData) -> Path:
        if data.labels is None:
            return super().write(examples, path, data)
        lists = examples.labels or []
        columns = {name: [int(name in labels) for labels in lists] for name in data.labels}
        return super().write(replace(examples, inputs={**examples.inputs, **columns}, labels=None), path, data)

    def made_up(self, count: int, data: MultiLabelData) -> Examples:
        seen = made_up_inputs(count, data)
        return seen.labelled(made_up_label_lists(count, data.labels), seen.groups, seen.strata)

    def describe(self, targets: Targets) -> str:
        return described("classification of texts with any number of labels", targets)

    def loading(self, names: CardNames, targets: Targets, data: MultiLabelData, base: Base) -> str:
        use = f"""    for row in model(**tokens).logits.sigmoid().tolist():
        print([label for label, probability in zip(labels, row) if probability >= {self.threshold}])"""
        options = f'{CLASS_OPTIONS}, problem_type="multi_label_classification"'
        return text_card(names, data, base, f"labels = {targets['classes']!r}", options, use)
