"""What a model answers: to many prompts, some at a time, and to one of them, as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, TextStreamer

from structune.data.examples import Examples
from structune.tasks.parts.chats.model import device_of
from structune.tasks.parts.chats.tokens import encode_chats
from structune.tasks.parts.generation.complete import Drawing, complete, end_tokens, padded_left

_TOGETHER = 8  # batches out of which alike lengths are taken together


def write_answers(
    model: nn.Module, tokenizer: Any, examples: Examples, most: int, new: int, size: int, drawing: Drawing | None
) -> Iterator[str]:
    """What the model answers to each example, in their order.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        examples: without labels.
        most: how many tokens of a prompt are seen.
        new: how many tokens are written at most.
        size: prompts in a batch.
        drawing: how tokens are drawn; None: the likeliest.
    """
    for first in range(0, len(examples), size * _TOGETHER):
        part = examples.subset(range(first, min(first + size * _TOGETHER, len(examples))))
        rows = [row["input_ids"].tolist() for row in encode_chats(part, tokenizer, most)]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        texts = [""] * len(rows)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = padded_left([rows[row] for row in chosen], tokenizer.pad_token_id)
            batch = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
            for row, text in zip(chosen, complete(model, tokenizer, batch, new, drawing).texts, strict=True):
                texts[row] = text
        yield from texts


@torch.no_grad()
def write_answer(
    model: Any, tokenizer: Any, prompt: Sequence[int], new: int, drawing: Drawing | None, tell: Callable[[str], None]
) -> str:
    """What the model answers to one prompt; `tell` is given it piece by piece, as it is written."""
    settings: dict[str, Any] = {"do_sample": False}
    if drawing is not None:
        settings = {"do_sample": True, "temperature": drawing.temperature, "top_p": drawing.top_p, "top_k": 0}
    told: list[str] = []

    class Told(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            told.append(text)
            tell(text)

    ids = torch.tensor([list(prompt)], device=device_of(model))
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=new,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end_tokens(model, tokenizer),
            **settings,
        ),
        streamer=Told(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )
    return "".join(told)
