"""What all tasks share that read whole texts or pairs of texts, with a model that classifies sequences."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from structune.data.examples import Examples
from structune.data.table import Table
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.texts import (
    TextData,
    doubts_about_cuts,
    load_tokenizer,
    padding,
    text_inputs,
    text_lines,
)
from structune.tasks.task import Base, Task


class TextTask(Task, ABC):
    """Something about each text or pair of texts: what the model sees, and how it is cut and padded."""

    hub_name: ClassVar[str] = "text-classification"
    peft_name: ClassVar[str | None] = "SEQ_CLS"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    def inputs(self, table: Table, data: TextData) -> Examples:
        return Examples.unlabelled(text_inputs(table, data))

    def from_lines(self, lines: Sequence[str], data: TextData) -> Table:
        return text_lines(lines, data)

    def processor(self, section: ModelSection) -> Any:
        return load_tokenizer(section)

    def save_small_model(self, section: ModelSection, folder: Path, widest: int) -> str:
        from structune.tasks.parts.small_model import save_small_text_model

        return save_small_text_model(section, folder, self.auto_class, "bert", widest)

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: TextData) -> Iterator[str]:
        return doubts_about_cuts(parts, base, data)

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        return padding(base.processor)
