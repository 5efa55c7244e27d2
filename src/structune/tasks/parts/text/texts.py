"""Texts and pairs of texts: their columns, their model, and from characters to batches of token numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, model_validator

from structune.data.examples import Examples
from structune.data.header import refuse_lost_row
from structune.data.section import DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.made_up import made_up_texts
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = 4000  # texts that are counted, at most


class TextData(DataSection):
    """Where texts are: `text` names their column, `text_pair` that of a second text beside each.

    A text longer than `max_length` tokens, or than the model can read, is cut at the end (of a pair: the longer one's).
    """

    text: str = "text"
    text_pair: str | None = None
    max_length: Annotated[int, Field(ge=4)] = 128

    @model_validator(mode="after")
    def _own_columns(self) -> TextData:
        if self.embedded is not None:
            for key in ("text", "text_pair", *self.label_columns()):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"the embedded data has its own columns; remove {key}")
        return self

    @classmethod
    def label_columns(cls) -> tuple[str, ...]:
        """The keys that name columns of labels."""
        return ()


class LabelledTextData(TextData):
    """Texts with one label each, in the column `label`."""

    label: str = "label"

    @classmethod
    def label_columns(cls) -> tuple[str, ...]:
        return ("label",)


def text_inputs(table: Table, data: TextData) -> dict[str, list[str]]:
    """The columns of texts: `text` and, for pairs, `text_pair`.

    Raises:
        UserError: a column is missing or has empty entries.
    """
    inputs = {"text": table.column(data.text, "text")}
    if data.text_pair is not None:
        inputs["text_pair"] = table.column(data.text_pair, "text_pair")
    return inputs


def made_up_inputs(count: int, data: TextData) -> Examples:
    """Texts, or pairs of texts, that are made up."""
    pairs = {} if data.text_pair is None else {"text_pair": made_up_texts(count, seed=1)}
    return Examples.unlabelled({"text": made_up_texts(count), **pairs})


def text_lines(lines: Sequence[str], data: TextData) -> Table:
    """A table with a row for each line, which is its text.

    Raises:
        UserError: texts come in pairs.
    """
    if data.text_pair is not None:
        raise UserError(
            f"data.text_pair = {data.text_pair!r}: this run reads pairs of texts, and a line is one text; give a file "
            f"with the columns {data.text!r} and {data.text_pair!r}, or JSON Lines with these keys"
        )
    return Table("what was given", {data.text: list(lines)}, list(range(1, len(lines) + 1)))


def text_groups(table: Table, data: TextData, inputs: Mapping[str, list[str]]) -> list[str]:
    """The `group` column; without one, texts that are equal but for case and spaces are a group."""
    if data.embedded is not None:
        return table.column("group", "group")
    if data.group is not None:
        return table.column(data.group, "group")
    ones, twos = inputs["text"], inputs.get("text_pair", inputs["text"])
    return [" ".join(f"{one} {two}".lower().split()) for one, two in zip(ones, twos, strict=True)]


def refuse_headless(table: Table, data: LabelledTextData) -> None:
    """Raises `UserError` where the names of the columns are a row's cells."""
    if table.headed and data.text in table.columns and data.label in table.columns:
        refuse_lost_row(table.columns, data.text, data.label, table.source)


def load_tokenizer(section: ModelSection, **options: Any) -> Any:
    """A model's tokenizer, padding with the end of texts where it has nothing else. Raises `UserError`: none there."""
    from transformers import AutoTokenizer

    from structune.tasks.parts.pretrained import load_processor

    tokenizer = load_processor(AutoTokenizer, section, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_text_model(auto: Any, section: ModelSection, seed: int, tokenizer: Any = None, **options: Any) -> Base:
    """A model of transformers with a tokenizer, its own by default, both knowing what they pad with.

    Raises:
        UserError: there is no such model, or it is of another kind than `auto` loads.
    """
    from structune.tasks.parts.pretrained import load_pretrained

    tokenizer = tokenizer or load_tokenizer(section)
    model, head = load_pretrained(auto, section, seed, **options)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return Base(model, tokenizer, head)


def longest(data: TextData, tokenizer: PreTrainedTokenizerBase) -> int:
    """At how many tokens texts are cut."""
    return min(data.max_length, tokenizer.model_max_length)


def encode_texts(examples: Examples, base: Base, data: TextData, labels: Sequence[Any] | None) -> list[dict[str, Any]]:
    """One dictionary of token ids, masks and `labels` for each example."""
    tokens = base.processor(
        examples.inputs["text"],
        examples.inputs.get("text_pair"),
        truncation=True,
        max_length=longest(data, base.processor),
    )
    rows = [{key: values[row] for key, values in tokens.items()} for row in range(len(examples))]
    return rows if labels is None else [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]


def padding(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Mapping[str, Any]]], dict[str, Any]]:
    """What pads the texts of a batch to the longest of them."""
    from transformers import DataCollatorWithPadding

    return cast(Callable[[list[Mapping[str, Any]]], dict[str, Any]], DataCollatorWithPadding(tokenizer))


def doubts_about_cuts(parts: Sequence[Examples], base: Base, data: TextData) -> Iterator[str]:
    """How many texts `encode_texts` cuts, and of how many tokens the longest is.

    A text has no more tokens than bytes, so short ones are not looked at; of very many long ones a sample is.
    """
    tokenizer = base.processor
    limit = longest(data, tokenizer)
    rows = [row for examples in parts for row, _ in examples.rows()]
    extra = tokenizer.num_special_tokens_to_add(pair=data.text_pair is not None)
    long = sorted((row for row in rows if _bytes(row) + extra > limit), key=_bytes)
    step = -(-len(long) // _SAMPLE) or 1
    sample = long[::-step]  # the longest among them
    if not sample:
        return
    columns = [list(column) for column in zip(*sample, strict=True)]
    tokens = tokenizer(*columns, return_attention_mask=False, verbose=False)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    cut = step * sum(length > limit for length in lengths)
    if cut:
        about = "about " if step > 1 else ""
        yield (
            f"data.max_length = {data.max_length}: {about}{min(cut, len(long)):,} of {len(rows):,} texts are cut after "
            f"{limit} tokens; the longest has {max(lengths):,}"
        )


def _bytes(row: Sequence[str]) -> int:
    return sum(len(part.encode()) for part in row)
