"""From pairs to batches of token numbers: what is prompt, what is response, what is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from structune.data.examples import Examples
from structune.tasks.parts.chats.messages import Message
from structune.tasks.parts.chats.rendering import Renderer

_COLUMNS = ("prompt", "chosen", "rejected")
_NAMES = ("prompt_ids", "chosen_ids", "rejected_ids")


def encode_pairs(examples: Examples, tokenizer: Any, most: int) -> list[dict[str, Any]]:
    """`prompt_ids`, `chosen_ids` and `rejected_ids` of each pair; of known ones `labels`, 1: the first is better."""
    rows = [dict(zip(_NAMES, _cut(*whole, most), strict=True)) for whole in _whole(examples, tokenizer)]
    return rows if examples.labels is None else [{**row, "labels": 1} for row in rows]


def doubts_about_cuts(parts: Sequence[Examples], tokenizer: Any, most: int) -> Iterator[str]:
    """How many pairs lose something of their prompts, and how many of their responses."""
    lengths = [
        (len(prompt), max(len(chosen), len(rejected)))
        for examples in parts
        for prompt, chosen, rejected in _whole(examples, tokenizer)
    ]
    responses = sum(response >= most for _, response in lengths)
    prompts = sum(prompt + response > most for prompt, response in lengths)
    if prompts:
        longest = max(map(sum, lengths))
        also = f", and {responses:,} of these the ends of responses" if responses else ""
        yield (
            f"data.max_length = {most}: {prompts:,} of {len(lengths):,} pairs lose the front of their prompts{also}; "
            f"the longest has {longest:,} tokens"
        )


def _whole(examples: Examples, tokenizer: Any) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Prompt and responses of each pair: the prompt is what its tokens and those with each response have in common."""
    renderer = Renderer(tokenizer)

    def tokens(messages: list[Message], answer: bool = False) -> list[int]:
        text = renderer.text(messages, answer=answer)
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    for prompt, chosen, rejected in zip(*(examples.inputs[name] for name in _COLUMNS), strict=True):
        with_chosen, with_rejected = tokens([*prompt, *chosen]), tokens([*prompt, *rejected])
        shared = min(_alike(tokens(prompt, answer=True), each) for each in (with_chosen, with_rejected))
        yield with_chosen[:shared], with_chosen[shared:], with_rejected[shared:]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    differing = (place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(differing, min(len(one), len(other)))


def _cut(prompt: list[int], chosen: list[int], rejected: list[int], most: int) -> tuple[list[int], ...]:
    """At most so many tokens in prompt and response together, at least one of them the prompt's."""
    chosen, rejected = chosen[: most - 1], rejected[: most - 1]
    return prompt[-(most - max(len(chosen), len(rejected))) :], chosen, rejected


class Padding:
    """Puts pairs together: chosen responses in the first half of a batch, rejected ones in the second.

    Args:
        filler: the token that stands where nothing is, on the right.
    """

    def __init__(self, filler: int) -> None:
        self.filler = filler

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
        responses = [*(row["chosen_ids"] for row in rows), *(row["rejected_ids"] for row in rows)]
        prompts = [row["prompt_ids"] for row in rows] * 2
        ids = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        most = max(map(len, ids))
        batch = {
            "input_ids": [row + [self.filler] * (most - len(row)) for row in ids],
            "attention_mask": [[1] * len(row) + [0] * (most - len(row)) for row in ids],
            "completion_mask": [
                [0] * len(prompt) + [1] * len(response) + [0] * (most - len(prompt) - len(response))
                for prompt, response in zip(prompts, responses, strict=True)
            ],
        }
        if "labels" in rows[0]:
            batch["labels"] = [row["labels"] for row in rows]
        return {name: torch.tensor(values) for name, values in batch.items()}
