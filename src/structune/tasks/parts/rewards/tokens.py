"""Prompts as tokens, up to where the model goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from structune.data.examples import Examples
from structune.tasks.parts.chats.rendering import Renderer


def asked(examples: Examples, tokenizer: Any) -> Iterator[list[int]]:
    """The tokens of each prompt with the beginning of an answer, as the tokenizer's chat template writes them.

    Raises:
        UserError: it has none, or refuses a prompt.
    """
    renderer = Renderer(tokenizer)
    for prompt in examples.inputs["prompt"]:
        text = renderer.text(prompt, answer=True)
        yield list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
