"""Texts to token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structune.finetune.data import Examples

__all__ = ["encode"]


def encode(examples: Examples, tokenizer: Any, label_names: Sequence[str], max_length: int) -> list[dict[str, Any]]:
    """One dictionary of token ids, masks and ``labels`` for each example, the shortest first.

    Batches are padded when they are put together: in this order, those of an evaluation need little of it.
    A text longer than ``max_length`` tokens, or than the model can read, is cut at the end (of a pair: the longer
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
