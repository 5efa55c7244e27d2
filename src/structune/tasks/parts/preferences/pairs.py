"""Rows with a prompt and two responses, of which the first is preferred."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.chats.messages import Message, content_of, is_openai, openai_messages

Pair = tuple[list[Message], list[Message], list[Message]]
"""The prompt, and what follows it in either case; the assistant has the last word."""


class PairData(DataSection):
    """Where pairs are: the columns `prompt`, `chosen` (the better response) and `rejected` (the worse one).

    They hold texts, or lists of messages (`role`, `content`). What messages of chosen and rejected begin with alike
    belongs to the prompt; where there is no column of prompts, so does what texts begin with alike, to the end of a
    word. `system` is the message before each prompt that has none of its own. What is longer than `max_length` tokens
    loses the front of its prompt, and then the end of its response.
    """

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    system: str | None = None
    max_length: Annotated[int, Field(ge=8)] = 1024

    @model_validator(mode="after")
    def _no_embedded(self) -> PairData:
        if self.embedded is not None:
            raise ValueError("the embedded data has no pairs of responses; give train, a file, or hub")
        return self


def pairs_of(table: Table, data: PairData) -> Examples:
    """The rows as `prompt`, `chosen` and `rejected`, lists of messages each.

    Raises:
        UserError: a column is missing, a cell is empty or no such thing, or a row has no prompt or only one response;
            names row, column and fix.
    """
    implicit = data.prompt not in table and data.prompt == PairData.model_fields["prompt"].default
    prompts = [None] * len(table) if implicit else table.values(data.prompt, "prompt")
    columns = (table.values(data.chosen, "chosen"), table.values(data.rejected, "rejected"))
    found: list[Pair] = []
    for row, (prompt, chosen, rejected) in enumerate(zip(prompts, *columns, strict=True)):
        try:
            found.append(_with_system(_pair(prompt, chosen, rejected), data.system))
        except ValueError as error:
            raise UserError(f"{table.places([row])} of {table.source}: {error}") from None
    names = ("prompt", "chosen", "rejected")
    return Examples.unlabelled({name: [pair[place] for pair in found] for place, name in enumerate(names)})


def _pair(prompt: Any, chosen: Any, rejected: Any) -> Pair:
    if is_openai(chosen) != is_openai(rejected):
        raise ValueError("one of chosen and rejected is a list of messages, the other is not; make them alike")
    if is_openai(chosen):
        return _of_messages(prompt, openai_messages(chosen), openai_messages(rejected))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            raise ValueError(f"{name} is neither a text nor a list of messages, but {text!r:.60}")
    if prompt is None:
        prompt, chosen, rejected = _split(chosen, rejected)
    return _asked(prompt), [_said("assistant", chosen)], [_said("assistant", rejected)]


def _of_messages(prompt: Any, chosen: list[Message], rejected: list[Message]) -> Pair:
    """Messages that are alike come to the prompt, unless it is what they end with."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    alike, better, worse = chosen[:shared], chosen[shared:], rejected[shared:]
    for name, response in (("chosen", better), ("rejected", worse)):
        if not response and better != worse:
            raise ValueError(f"{name} is the beginning of the other response; each needs an answer of its own")
        if response and response[-1]["role"] != "assistant":
            raise ValueError(f"{name} ends with {response[-1]['role']!r}, and nothing answers; delete the row")
    if not better and alike:  # both are the same
        alike, better, worse = alike[:-1], alike[-1:], alike[-1:]
    before = [] if prompt is None else _asked(prompt)
    repeated = before and content_of(before[-1]) in [content_of(message) for message in alike[-1:]]
    whole = alike if repeated else [*before, *alike]
    if not whole:
        raise ValueError(_NO_PROMPT)
    return whole, better, worse


def _split(chosen: str, rejected: str) -> tuple[str, str, str]:
    """What two texts begin with, up to the end of a word, and what is left of each with the space before it."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and not chosen[shared - 1].isspace():
        shared -= 1
    shared = len(chosen[:shared].rstrip(" "))
    if not shared:
        raise ValueError(_NO_PROMPT)
    return chosen[:shared], chosen[shared:], rejected[shared:]


_NO_PROMPT = (
    "there is no prompt: no column of prompts, and nothing that chosen and rejected begin with alike; say with "
    "data.prompt which column it is"
)


def _asked(prompt: Any) -> list[Message]:
    return openai_messages(prompt) if is_openai(prompt) else [_said("user", str(prompt))]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _with_system(pair: Pair, system: str | None) -> Pair:
    prompt, chosen, rejected = pair
    if system is None or prompt[0]["role"] == "system":
        return pair
    return [_said("system", system), *prompt], chosen, rejected


def doubts_about_pairs(examples: Examples, where: str) -> Iterator[str]:
    """How many pairs say nothing: both responses are the same."""
    if same := sum(one == other for one, other in _responses(examples)):
        yield (
            f"{same:,} of {len(examples):,} pairs {where} have the same response as chosen and as rejected: they teach "
            f"nothing, and count as half right"
        )


def longer_chosen(examples: Examples) -> float:
    """In which share of pairs the chosen response has more characters; where both have as many, it counts half."""
    lengths = [(_length(one), _length(other)) for one, other in _responses(examples)]
    return sum((one > other) + 0.5 * (one == other) for one, other in lengths) / max(len(lengths), 1)


def _responses(examples: Examples) -> Iterator[tuple[list[Message], list[Message]]]:
    yield from zip(examples.inputs["chosen"], examples.inputs["rejected"], strict=True)


def _length(response: Sequence[Message]) -> int:
    return sum(len(content_of(message)) for message in response)
