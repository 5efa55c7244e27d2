"""Text classification: one of several classes for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from structune.data.examples import Examples
from structune.data.table import Table
from structune.tasks.parts.class_doubts import doubts_about, doubts_about_texts
from structune.tasks.parts.classification import Classification, class_numbers, class_options, described
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.no_classes import other_indicators, refuse_split_label
from structune.tasks.parts.texts import (
    LabelledTextData,
    doubts_about_cuts,
    encode_texts,
    load_text_model,
    load_tokenizer,
    longest,
    padding,
    refuse_headless,
    text_groups,
    text_inputs,
    text_lines,
)
from structune.tasks.task import Base, CardNames, Targets


class TextClassification(Classification):
    """One of several classes for each text or pair of texts; the targets are the classes' names (`classes`)."""

    name: Literal["text-classification"] = "text-classification"

    data_section: ClassVar[type[LabelledTextData]] = LabelledTextData
    hub_name: ClassVar[str] = "text-classification"
    peft_name: ClassVar[str] = "SEQ_CLS"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    def examples(self, table: Table, data: LabelledTextData) -> Examples:
        refuse_split_label(table, data.label)
        seen = self.inputs(table, data)
        labels = [value.strip() for value in table.column(data.label, "label")]
        refuse_headless(table, data)
        return seen.labelled(labels, text_groups(table, data, seen.inputs), labels)

    def inputs(self, table: Table, data: LabelledTextData) -> Examples:
        return Examples.unlabelled(text_inputs(table, data))

    def from_lines(self, lines: Sequence[str], data: LabelledTextData) -> Table:
        return text_lines(lines, data)

    def doubts_about_table(self, table: Table, data: LabelledTextData) -> Iterator[str]:
        return other_indicators(table, data.label)

    def doubts(self, train: Examples, held_out: Examples, data: LabelledTextData) -> Iterator[str]:
        return doubts_about(train, held_out, data.text, data.label)

    def doubts_about_file(self, examples: Examples, data: LabelledTextData) -> Iterator[str]:
        return doubts_about_texts(examples, data.text)

    def processor(self, section: ModelSection) -> Any:
        return load_tokenizer(section)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import AutoModelForSequenceClassification

        return load_text_model(AutoModelForSequenceClassification, section, seed, **class_options(targets))

    def encode(
        self, examples: Examples, base: Base, targets: Targets, data: LabelledTextData
    ) -> Sequence[Mapping[str, Any]]:
        return encode_texts(examples, base, data, class_numbers(examples, targets))

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: LabelledTextData) -> Iterator[str]:
        return doubts_about_cuts(parts, base, data)

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        return padding(base.processor)

    def describe(self, targets: Targets) -> str:
        return described("text classification", targets)

    def loading(self, names: CardNames, targets: Targets, data: LabelledTextData, base: Base) -> str:
        most = longest(data, base.processor)
        given, texts = 'texts = ["some text"]', "texts"
        if data.text_pair is not None:
            given, texts = f'{given}\nseconds = ["the text beside it"]', "texts, seconds"
        return f"""import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

labels = {targets["classes"]!r}
tokenizer = AutoTokenizer.from_pretrained({names.base!r}{names.options})
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained(
    {names.base!r}{names.options}, num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={{label: number for number, label in enumerate(labels)}}, pad_token_id=tokenizer.pad_token_id,
)
model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

{given}
tokens = tokenizer({texts}, padding=True, truncation=True, max_length={most}, return_tensors="pt")
with torch.inference_mode():
    for number in model(**tokens).logits.argmax(-1).tolist():
        print(labels[number])"""
