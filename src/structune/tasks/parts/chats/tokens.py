"""Conversations as tokens: which of them are learned, and what is cut where there are too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from structune.data.examples import Examples
from structune.errors import UserError
from structune.tasks.parts.chats.messages import Message
from structune.tasks.parts.chats.rendering import Renderer, Span
from structune.tasks.task import IGNORED, Base

_AT_ONCE = 512  # conversations that are tokenised together


class Whole(NamedTuple):
    """A conversation as tokens before anything is cut.

    Attributes:
        ids: the tokens.
        learned: whether each is learned.
        answer: the place of the last response's first token; the number of tokens where there is none.
        across: how many tokens are part prompt, part response.
    """

    ids: np.ndarray[Any, Any]
    learned: np.ndarray[Any, Any]
    answer: int
    across: int


class ChatTokens:
    """Turns conversations and texts into tokens as a tokenizer's chat template writes them.

    Args:
        tokenizer: one of the Rust ones, which know where in a text tokens are.

    Raises:
        UserError: it is another.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"model.name: its tokenizer ({type(tokenizer).__name__}) does not tell where in a text its tokens are; "
                f"save it as a fast one (tokenizer.json)"
            )
        self.tokenizer = tokenizer
        self.rewrote = False

    def whole(
        self, prompts: Sequence[list[Message]], responses: Sequence[Message | str], tools: Sequence[Any]
    ) -> Iterator[Whole]:
        """Conversations with their responses, one after the other; of a text every token is learned.

        Raises:
            UserError: the template refuses one.
        """
        renderer: Renderer | None = None
        for first in range(0, len(prompts), _AT_ONCE):
            texts: list[str] = []
            spans: list[list[Span]] = []
            part = slice(first, first + _AT_ONCE)
            for prompt, response, tool in zip(prompts[part], responses[part], tools[part], strict=True):
                if isinstance(response, str):
                    text, found = self._plain(response)
                else:
                    renderer = renderer or Renderer(self.tokenizer)
                    text, found = renderer.spans([*prompt, response], tool)
                texts.append(text)
                spans.append(found)
            self.rewrote = self.rewrote or (renderer is not None and renderer.rewrote)
            tokens = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for ids, offsets, found in zip(tokens["input_ids"], tokens["offset_mapping"], spans, strict=True):
                yield _marked(ids, offsets, found)

    def asked(self, prompts: Sequence[list[Message]], tools: Sequence[Any]) -> Iterator[np.ndarray[Any, Any]]:
        """What stands before an answer, one after the other: a text that is gone on with, or a conversation.

        Raises:
            UserError: the template refuses one.
        """
        for prompt, tool in zip(prompts, tools, strict=True):
            if prompt and prompt[0]["role"] == "text":
                text = self._begun(prompt[0]["content"])
            else:
                text = Renderer(self.tokenizer).text(prompt, tool, answer=True)
            yield np.array(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)

    def _begun(self, text: str) -> str:
        """A text with what the tokenizer puts before one."""
        first = self.tokenizer.bos_token or ""
        puts = bool(first) and self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        return first + text if puts else text

    def _plain(self, text: str) -> tuple[str, list[Span]]:
        """A text from its beginning to its end, both marked, and all of it learned."""
        end = self.tokenizer.eos_token or ""
        whole = self._begun(text)
        whole += "" if text.endswith(end) else end
        return whole, [(0, len(whole))]


def _marked(ids: Sequence[int], offsets: Sequence[Span], spans: Sequence[Span]) -> Whole:
    """The tokens that have characters of a response are learned."""
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    learned = np.zeros(len(ids), dtype=bool)
    across, answer = 0, len(ids)
    for first, last in spans:
        own = (starts < last) & (ends > first) & (ends > starts)
        learned |= own
        across += int((own & (starts < first)).sum())
        answer = int(own.argmax()) if own.any() else answer
    return Whole(np.array(ids, dtype=np.int32), learned, answer, across)


def cut(whole: Whole, most: int, first: int | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Tokens, which are learned, and where the last response begins, of at most so many tokens.

    The front of the prompt goes, all of it before anything of the last response; of that the end goes. A token that
    begins texts stays before what is left of a prompt.

    Args:
        whole: what is cut.
        most: how many tokens are left.
        first: the token that begins texts, if there is one.
    """
    ids, learned, answer, _ = whole
    over = len(ids) - most
    if over <= 0:
        return ids, learned, answer
    drop = min(over, answer)
    keeps_first = first is not None and len(ids) > 0 and ids[0] == first and not learned[0] and drop < answer
    kept = np.arange(drop, len(ids))[:most]
    if keeps_first:
        kept[0] = 0  # in the place of the first token that is left
    return ids[kept], learned[kept], answer - drop


def encode_chats(examples: Examples, tokenizer: Any, most: int) -> list[dict[str, Any]]:
    """`input_ids` of each example; `labels`, `IGNORED` where nothing is learned; `answer`, the last response's place.

    Without responses: `input_ids` of what is asked.
    """
    tokens = ChatTokens(tokenizer)
    prompts, tools = examples.inputs["prompt"], _tools(examples)
    first = tokenizer.bos_token_id
    if examples.labels is None:
        asked = (Whole(ids, np.zeros(len(ids), dtype=bool), len(ids) - 1, 0) for ids in tokens.asked(prompts, tools))
        return [{"input_ids": cut(whole, most, first)[0]} for whole in asked]
    rows = []
    for whole in tokens.whole(prompts, examples.labels, tools):
        ids, learned, answer = cut(whole, most, first)
        rows.append({"input_ids": ids, "labels": np.where(learned, ids, IGNORED).astype(np.int32), "answer": answer})
    return rows


def doubts_about_tokens(parts: Sequence[Examples], tokenizer: Any, most: int) -> Iterator[str]:
    """How many conversations lose something, how many tokens lie across the beginning of a response, unseen tools."""
    tokens = ChatTokens(tokenizer)
    total = longest = front = ends = across = unlearned = 0
    for examples in parts:
        labels = examples.labels
        if labels is None:
            found: Iterator[Whole] = (
                Whole(ids, np.zeros(len(ids), dtype=bool), len(ids), 0)
                for ids in tokens.asked(examples.inputs["prompt"], _tools(examples))
            )
        else:
            found = tokens.whole(examples.inputs["prompt"], labels, _tools(examples))
        for whole in found:
            total += 1
            longest = max(longest, len(whole.ids))
            front += len(whole.ids) > most and whole.answer > 0
            ends += len(whole.ids) - whole.answer > most
            across += whole.across > 0
            unlearned += labels is not None and not whole.learned.any()
    if front or ends:
        also = f"; {ends:,} are longer by their response alone, and lose its end" if ends else ""
        yield (
            f"data.max_length = {most}: {front:,} of {total:,} conversations lose the front of their prompts{also}; "
            f"the longest has {longest:,} tokens"
        )
    if across:
        yield (
            f"task.chat_template: in {across:,} of {total:,} conversations a token is part prompt, part response, so a "
            f"prompt alone is other tokens than it was learned with; a template that ends prompts with a line break "
            f"or a token of its own would not do that"
        )
    if tokens.rewrote:
        yield (
            "task.chat_template: the model's own leaves out some of what was said before; conversations are learned "
            "with the one that TRL has for training it, which keeps it"
        )
    if unlearned:
        yield f"{unlearned:,} of {total:,} conversations have no token to learn"
    if any(any(_tools(examples)) for examples in parts) and not Renderer(tokenizer).sees_tools:
        yield ("data.tools: the chat template has no place for tools, so the model is not told of them; name another")


def _tools(examples: Examples) -> Sequence[Any]:
    return examples.inputs.get("tools") or [None] * len(examples)


def longest(data: Any, base: Base) -> int:
    """At how many tokens conversations are cut: `data.max_length`, or as many as the tokenizer and the model read.

    The model may not be there, where what is doubtful is told before any is loaded.
    """
    most = getattr(getattr(base.model, "config", None), "max_position_embeddings", None) or data.max_length
    return min(data.max_length, int(base.processor.model_max_length), int(most))


def stop_token(tokenizer: Any) -> int | None:
    """The special token with which the template ends a response; None where it writes none.

    Of models whose end of a text is another token than the end of a turn.
    """
    try:
        text, spans = Renderer(tokenizer).spans(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        )
    except UserError:
        return None
    ids = tokenizer(text[spans[0][0] : spans[0][1]], add_special_tokens=False)["input_ids"]
    known = set(tokenizer.all_special_ids) | {
        number for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special
    }
    return next((int(number) for number in ids if number in known), None)


def lengths(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of each."""
    return [len(row["input_ids"]) for row in rows]
