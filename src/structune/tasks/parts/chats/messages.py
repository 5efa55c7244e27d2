"""A conversation as a list of messages, in the form that chat templates read: `role` and `content`.

A message of the assistant may have `tool_calls` beside or in place of its content, and `weight: 0`, by which it is no
response to learn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from structune.data.cells import is_missing

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}
"""Of `from` in conversations as ShareGPT has them."""


def openai_messages(cell: Any) -> list[Message]:
    """The messages of a cell that holds a list of them with `role` and `content`, or such a list as JSON.

    Raises:
        ValueError: it holds something else; the message says what.
    """
    return [_openai_message(number, each) for number, each in enumerate(_listed(cell), 1)]


def sharegpt_messages(cell: Any) -> list[Message]:
    """The messages of a cell that holds a list of them with `from` and `value`, or such a list as JSON.

    Raises:
        ValueError: it holds something else; the message says what.
    """
    return [_sharegpt_message(number, each) for number, each in enumerate(_listed(cell), 1)]


def is_openai(cell: Any) -> bool:
    """Whether a cell holds a list of messages with roles."""
    try:
        return bool(openai_messages(cell))
    except ValueError:
        return False


def tools_of(cell: Any) -> list[dict[str, Any]] | None:
    """What a cell says of tools: a list of JSON schemas, or such a list as JSON; None where it is empty.

    Raises:
        ValueError: it holds something else.
    """
    if is_missing(cell) or cell in ("", []):
        return None
    tools = _parsed(cell)
    if (
        not isinstance(tools, Sequence)
        or isinstance(tools, str)
        or not all(isinstance(each, Mapping) for each in tools)
    ):
        raise ValueError("tools are a list of JSON schemas, one for each")
    return [_without_missing(each) for each in tools] or None


def is_response(message: Message) -> bool:
    """Whether it is the assistant's, and to be learned."""
    return message["role"] == "assistant" and message.get("weight") != 0


def content_of(message: Message) -> str:
    """Its text: of content in parts, all that is text."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _openai_message(number: int, given: Any) -> Message:
    if not isinstance(given, Mapping) or "role" not in given:
        raise ValueError(f"message {number} has no role; a message is {{role: …, content: …}}")
    message = _without_missing(given)
    if message.get("role") not in ROLES:
        raise ValueError(f"message {number} has the role {message.get('role')!r}; known: {', '.join(ROLES)}")
    content = message.setdefault("content", "")
    parts = content if isinstance(content, list) else []
    if not isinstance(content, (str, list)) or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"message {number} has a content that is no text")
    if other := [part.get("type") for part in parts if part.get("type", "text") != "text"]:
        raise ValueError(f"message {number} holds {other[0]!r}; only texts are read")
    message["content"] = content_of(message)
    if not message["content"] and message["role"] == "assistant" and not message.get("tool_calls"):
        raise ValueError(f"message {number}, the assistant's, is empty")
    return message


def _sharegpt_message(number: int, given: Any) -> Message:
    if not isinstance(given, Mapping) or not {"from", "value"} <= given.keys():
        raise ValueError(f"message {number} has no from and value; a message is {{from: …, value: …}}")
    source, value = given["from"], given["value"]
    if source not in SHAREGPT_ROLES:
        raise ValueError(f"message {number} is from {source!r}; known: {', '.join(SHAREGPT_ROLES)}")
    if source == "function_call":
        call = _parsed(value)
        if not isinstance(call, Mapping) or "name" not in call:
            raise ValueError(f"message {number} is a function call, and no JSON with a name and arguments")
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": dict(call)}]}
    weight = {} if given.get("weight") is None else {"weight": given["weight"]}
    return _openai_message(number, {"role": SHAREGPT_ROLES[source], "content": value, **weight})


def _listed(cell: Any) -> Sequence[Any]:
    messages = _parsed(cell)
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        raise ValueError("there is no list of messages")
    return messages


def _parsed(cell: Any) -> Any:
    """What a cell holds, read where it is JSON as a text."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _without_missing(given: Any) -> Any:
    """Without keys that hold nothing: tables give every message the keys of all."""
    if isinstance(given, Mapping):
        return {key: _without_missing(value) for key, value in given.items() if value is not None}
    return [_without_missing(each) for each in given] if isinstance(given, list) else given
