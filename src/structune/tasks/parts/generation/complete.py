"""Completions of prompts: the likeliest, or drawn so that a prompt has the same one in any batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Attributes:
        temperature: the logits are divided by it.
        top_p: of the likeliest tokens, how much probability is drawn from.
        seed: by which, with the prompt, a completion is decided.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Completions(NamedTuple):
    """What a model wrote.

    Attributes:
        texts: without special tokens.
        ids: (completions, tokens), filled up on the right.
        counted: 1 for a completion's own tokens, its end among them, as `ids`.
        ended: whether each came to an end before it was cut off.
    """

    texts: list[str]
    ids: Tensor
    counted: Tensor
    ended: Tensor


def padded_left(rows: Sequence[Sequence[int]], filler: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of prompts, each of which ends at the last place."""
    most = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[filler] * (most - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows]),
    }


@torch.no_grad()
def complete(
    model: Any, tokenizer: Any, prompts: dict[str, Tensor], most: int, drawing: Drawing | None = None
) -> Completions:
    """What the model writes after each prompt.

    Args:
        model: of transformers or of PEFT; it writes in evaluation mode, and goes back to where it was.
        tokenizer: its own.
        prompts: `input_ids` and `attention_mask`, padded on the left.
        most: how many tokens are written at most.
        drawing: how they are drawn; None: the likeliest each time.
    """
    ends = end_tokens(model, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends
    )
    ids = prompts["input_ids"]
    steps = LogitsProcessorList()
    if drawing is not None:
        steps.append(TemperatureLogitsWarper(float(drawing.temperature)))
        if drawing.top_p < 1:
            steps.append(TopPLogitsWarper(drawing.top_p))
        steps.append(_Gumbel(drawing.seed, _unpadded(prompts)))
    training = model.training
    model.eval()
    try:
        written = model.generate(
            **{name: prompts[name] for name in ("input_ids", "attention_mask")},
            generation_config=settings,
            logits_processor=steps,
        )[:, ids.shape[1] :]
    finally:
        model.train(training)
    end = torch.isin(written, torch.tensor(ends, device=written.device))
    counted = (end.int().cumsum(1) - end.int() == 0).long()  # up to the first end, which counts
    texts = [
        tokenizer.decode(row[mask.bool()], skip_special_tokens=True) for row, mask in zip(written, counted, strict=True)
    ]
    return Completions(texts, written, counted, end.any(1))


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end what the model writes: those its configuration names, and the tokenizer's."""
    named = model.generation_config.eos_token_id
    named = [] if named is None else named if isinstance(named, list) else [named]
    return list(dict.fromkeys([*named, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]))


def _unpadded(prompts: dict[str, Tensor]) -> list[list[int]]:
    return [
        ids[mask.bool()].tolist()
        for ids, mask in zip(prompts["input_ids"].cpu(), prompts["attention_mask"].cpu(), strict=True)
    ]


class _Gumbel(LogitsProcessor):
    """Adds −log(−log u), u uniform: the largest sum is a draw from the softmax (Gumbel 1954).

    u comes from a stream of numbers for each prompt, so that neither the others in a batch nor their order count.
    """

    def __init__(self, seed: int, prompts: Sequence[Sequence[int]]) -> None:
        self.streams = [
            torch.Generator().manual_seed(
                int.from_bytes(hashlib.blake2b(repr((seed, list(prompt))).encode(), digest_size=7).digest(), "little")
            )
            for prompt in prompts
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=stream, dtype=torch.float64) for stream in self.streams]
        )
        noise = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
        return scores + noise.to(scores)


def remember_tokenizer(model: nn.Module, tokenizer: Any) -> None:
    """Let a model that writes know how its tokens are read, wherever it is wrapped."""
    model.structune_tokenizer = tokenizer


def tokenizer_of(model: Any) -> Any:
    """What `remember_tokenizer` was given, of the model or of one around it."""
    return getattr(model, "module", model).structune_tokenizer
