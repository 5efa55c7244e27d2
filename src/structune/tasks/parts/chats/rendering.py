"""Conversations as one text, and where in it the responses are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from structune.errors import UserError
from structune.tasks.parts.chats.messages import Message, is_response

Span = tuple[int, int]
"""Between which characters something is."""

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Renderer:
    """Writes conversations down as a tokenizer's chat template does.

    What the assistant says is between what the template writes up to a response, with the beginning of an answer, and
    what it writes with the response; templates that mark it themselves (`{% generation %}`) are believed.

    Args:
        tokenizer: with a chat template.

    Attributes:
        sees_tools: whether the template has a place for tools.
        rewrote: whether another one that TRL knows stood in for it, as it rewrites what was said before.

    Raises:
        UserError: it has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not isinstance(tokenizer.chat_template, str):
            known = "" if tokenizer.chat_template is None else ", but several by name"
            raise UserError(
                f"task.chat_template: the model's tokenizer has none{known}; name one: chatml, alpaca, plain, or a file"
            )
        self.tokenizer = tokenizer
        self.template: str = tokenizer.chat_template
        self.sees_tools = "tools" in self.template
        self.rewrote = False

    def text(self, messages: Sequence[Message], tools: Any = None, answer: bool = False) -> str:
        """The conversation as text.

        Args:
            messages: the conversation.
            tools: what may be called.
            answer: whether the beginning of an answer follows.

        Raises:
            UserError: the template refuses the conversation.
        """
        try:
            whole = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, tokenize=False, add_generation_prompt=answer
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise self._refused(messages, error) from None
        return str(whole)

    def spans(self, messages: Sequence[Message], tools: Any = None) -> tuple[str, list[Span]]:
        """The conversation as text, and where its responses are that are learned.

        Raises:
            UserError: the template refuses it, or writes the beginning of a conversation otherwise than the whole.
        """
        if _MARKED.search(self.template):
            return self._marked(self.template, messages, tools)
        text = self.text(messages, tools)
        spans = []
        for turn, message in enumerate(messages):
            if not is_response(message):
                continue
            before = self.text(messages[:turn], tools, answer=True) if turn else self._first(tools)
            after = text if turn == len(messages) - 1 else self.text(messages[: turn + 1], tools)
            if not (text.startswith(before) and text.startswith(after) and len(before) < len(after)):
                return self._known(messages, tools)
            spans.append((len(before), len(after)))
        return text, spans

    def _first(self, tools: Any) -> str:
        """What stands before an answer that nothing was said before."""
        try:
            return self.text([], tools, answer=True)
        except UserError:
            raise UserError(
                "a conversation begins with a response, and the chat template does not allow that; delete it, or put a "
                "message of the user before it"
            ) from None

    def _known(self, messages: Sequence[Message], tools: Any) -> tuple[str, list[Span]]:
        """By the template with marks that TRL has in place of some models' own."""
        from trl.chat_template_utils import get_training_chat_template

        self.rewrote = True
        try:
            template = get_training_chat_template(self.tokenizer)
        except ValueError:
            template = None
        if template is None:
            raise UserError(
                "task.chat_template: the template writes the beginning of a conversation otherwise than the whole, so "
                "it cannot be told what is the response; give a file with a template that has {% generation %} and "
                "{% endgeneration %} around responses, or keep to conversations of one question and answer"
            )
        return self._marked(template, messages, tools)

    def _marked(self, template: str, messages: Sequence[Message], tools: Any) -> tuple[str, list[Span]]:
        try:
            rendered: Any = render_jinja_template(
                conversations=[list(messages)],
                tools=tools,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise self._refused(messages, error) from None
        texts, spans = rendered
        turns = [message for message in messages if message["role"] == "assistant"]
        if len(turns) != len(spans[0]):
            raise UserError(
                f"task.chat_template: marks {len(spans[0])} responses of a conversation that has {len(turns)}; mend it"
            )
        return texts[0], [(span[0], span[1]) for turn, span in zip(turns, spans[0], strict=True) if is_response(turn)]

    def _refused(self, messages: Sequence[Message], error: Exception) -> UserError:
        roles = ", ".join(message["role"] for message in messages)
        return UserError(
            f"task.chat_template: refuses a conversation ({roles}): {' '.join(str(error).split())}; change the rows, "
            f"or name another template"
        )
