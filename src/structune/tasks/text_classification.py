"""Text classification: one of several classes for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from structune.data.examples import Examples
from structune.data.table import Table
from structune.tasks.parts.classes.classification import class_numbers, described
from structune.tasks.parts.classes.doubts import doubts_about, doubts_about_texts
from structune.tasks.parts.classes.head import ClassHead
from structune.tasks.parts.classes.no_classes import other_indicators, refuse_split_label
from structune.tasks.parts.made_up import made_up_classes
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
from structune.tasks.task import Base, CardNames, Targets


class TextClassification(TextTask, ClassHead):
    """One of several classes for each text or pair of texts; the targets are the classes' names (`classes`)."""

    name: Literal["text-classification"] = "text-classification"

    data_section: ClassVar[type[LabelledTextData]] = LabelledTextData

    def examples(self, table: Table, data: LabelledTextData) -> Examples:
        refuse_split_label(table, data.label)
        seen = self.inputs(table, data)
        labels = [value.strip() for value in table.column(data.label, "label")]
        refuse_headless(table, data)
        return seen.labelled(labels, text_groups(table, data, seen.inputs), labels)

    def doubts_about_table(self, table: Table, data: LabelledTextData) -> Iterator[str]:
        return other_indicators(table, data.label)

    def doubts(self, train: Examples, held_out: Examples, data: LabelledTextData) -> Iterator[str]:
        return doubts_about(train, held_out, data.text, data.label)

    def doubts_about_file(self, examples: Examples, data: LabelledTextData) -> Iterator[str]:
        return doubts_about_texts(examples, data.text)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import AutoModelForSequenceClassification

        options = self.head_options(targets)
        base = load_text_model(AutoModelForSequenceClassification, section, seed, **options)
        return self.with_head(base, section.name, targets)

    def encode(
        self, examples: Examples, base: Base, targets: Targets, data: LabelledTextData
    ) -> Sequence[Mapping[str, Any]]:
        return encode_texts(examples, base, data, class_numbers(examples, targets))

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        batches = super().collator(base, training)
        return self.to_learn(batches, base) if training else batches

    def made_up(self, count: int, data: LabelledTextData) -> Examples:
        seen, labels = made_up_inputs(count, data), made_up_classes(count)
        return seen.labelled(labels, seen.groups, labels)

    def describe(self, targets: Targets) -> str:
        return described("text classification", targets)

    def loading(self, names: CardNames, targets: Targets, data: LabelledTextData, base: Base) -> str:
        use = """    for number in model(**tokens).logits.argmax(-1).tolist():
        print(labels[number])"""
        known, head = f"labels = {targets['classes']!r}", self.loading_head(base)
        return text_card(names, data, base, known, "" if head else CLASS_OPTIONS, use, head)
