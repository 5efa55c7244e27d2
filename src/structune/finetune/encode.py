"""Texts to token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structune.finetune.data import Examples
from structune.finetune.doubt import say

_SAMPLE = 4000  # texts that are counted, at most


def encode(examples: Examples, tokenizer: Any, label_names: Sequence[str], max_length: int) -> list[dict[str, Any]]:
    """One dictionary of token ids, masks and `labels` for each example, the shortest first.

    Batches are padded when they are put together: in this order, those of an evaluation need little of it.
    A text longer than `max_length` tokens, or than the model can read, is cut at the end (of a pair: the longer
    text's).
    """
    number = {name: index for index, name in enumerate(label_names)}
    tokens = tokenizer(
        examples.texts, examples.pairs, truncation=True, max_length=min(max_length, tokenizer.model_max_length)
    )
    encoded = [
        {**{key: values[row] for key, values in tokens.items()}, "labels": number[label]}
        for row, label in enumerate(examples.labels)
    ]
    return sorted(encoded, key=lambda example: len(example["input_ids"]))


def warn_of_cut_texts(parts: Sequence[Examples], tokenizer: Any, max_length: int) -> None:
    """Warn with a `DataWarning` how many texts `encode` cuts, and of how many tokens the longest is.

    A text has no more tokens than bytes, so short ones are not looked at; of very many long ones a sample is.
    """
    limit = min(max_length, tokenizer.model_max_length)
    rows = [
        (text, pair)
        for examples in parts
        for text, pair in zip(examples.texts, examples.pairs or [""] * len(examples), strict=True)
    ]
    extra = tokenizer.num_special_tokens_to_add(pair=parts[0].pairs is not None)
    long = sorted((row for row in rows if _bytes(row) + extra > limit), key=_bytes)
    step = -(-len(long) // _SAMPLE) or 1
    sample = long[::-step]  # the longest among them
    if not sample:
        return
    pairs = [pair for _, pair in sample] if parts[0].pairs is not None else None
    tokens = tokenizer([text for text, _ in sample], pairs, return_attention_mask=False, verbose=False)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    cut = step * sum(length > limit for length in lengths)
    if cut:
        about = "about " if step > 1 else ""
        say(
            [
                f"data.max_length = {max_length}: {about}{min(cut, len(long)):,} of {len(rows):,} texts are cut after "
                f"{limit} tokens; the longest has {max(lengths):,}"
            ]
        )


def _bytes(row: tuple[str, str]) -> int:
    return sum(len(part.encode()) for part in row)
