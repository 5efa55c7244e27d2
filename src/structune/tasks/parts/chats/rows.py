"""Rows that hold conversations, in one of five forms, which follows from their columns or is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from structune.data.cells import as_text
from structune.data.examples import Examples
from structune.data.formats.text import lines_of
from structune.data.section import TO_PREDICT, DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.files import write_text
from structune.tasks.parts.chats.messages import (
    Message,
    content_of,
    is_openai,
    is_response,
    openai_messages,
    sharegpt_messages,
    tools_of,
)

FormName = Literal["messages", "conversations", "alpaca", "prompt", "text"]


class ChatData(DataSection):
    """Where conversations are, in one of five forms: the columns tell which, or `form` where they leave it open.

    `messages`: a list of messages (`role`, `content`; `tool_calls`; `weight: 0` for what is not learned), with `tools`
    beside it. `conversations`: the same with `from` and `value`. `alpaca`: `instruction`, perhaps `input`, `output`.
    `prompt`: `prompt` and `completion`, texts or lists of messages. `text`: texts as they are, of which every token is
    learned. `system` is the message before each conversation that has none of its own. What is longer than `max_length`
    tokens loses the front of its prompt, and then the end of its response.
    """

    form: FormName | None = None
    messages: str = "messages"
    conversations: str = "conversations"
    tools: str = "tools"
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    prompt: str = "prompt"
    completion: str = "completion"
    text: str = "text"
    system: str | None = None
    max_length: Annotated[int, Field(ge=8)] = 1024

    @model_validator(mode="after")
    def _no_embedded(self) -> ChatData:
        if self.embedded is not None:
            raise ValueError("the embedded data has no conversations; give train, a file, or hub")
        return self

    def read(self, path: str | Path, field: str) -> Table | None:
        """A text file with a prompt on each line, to be answered."""
        prompts = lines_of(path) if field == TO_PREDICT else None
        if prompts is None:
            return None
        return replace(line_table([*prompts.values()], self), source=str(path), lines=[*prompts])


@dataclass(frozen=True)
class Conversations:
    """Rows as they are learned from.

    Attributes:
        prompts: the messages before the last response; none of a text.
        responses: the last response, a message, or a text; None where rows are to be answered.
        tools: what each may call.
    """

    prompts: list[list[Message]]
    responses: list[Message | str] | None
    tools: list[list[dict[str, Any]] | None]


def conversations(table: Table, data: ChatData, answered: bool) -> Conversations:
    """The conversations of a table's rows.

    Args:
        table: the rows.
        data: which columns and form.
        answered: whether they end with a response. Where not, columns of responses need not be there, and are not read.

    Raises:
        UserError: the form is open, a column is missing, or a cell is no such thing; names row, column and fix.
    """
    form = FORMS[form_of(table, data, answered)]
    prompts, responses = form.read(table, data, answered)
    tools = (
        _each(table, data.tools, "tools", tools_of) if form.has_tools and data.tools in table else [None] * len(table)
    )
    if data.system is not None and form.name != "text":
        first: Message = {"role": "system", "content": data.system}
        prompts = [prompt if prompt and prompt[0]["role"] == "system" else [first, *prompt] for prompt in prompts]
    return Conversations(prompts, responses if answered else None, tools)


def form_of(table: Table, data: ChatData, answered: bool) -> FormName:
    """The form of a table's rows: the one that is named, else the only one whose columns are there.

    Raises:
        UserError: none is, or several are.
    """
    if data.form is not None:
        return data.form
    found = [form for form in FORMS.values() if all(getattr(data, key) in table for key in form.keys(answered))]
    if len(found) == 1:
        return found[0].name
    columns = ", ".join(map(repr, table.columns))
    if found:
        names = [form.name for form in found]
        raise UserError(
            f"{table.source}: its columns ({columns}) could be {' or '.join(names)}; set data.form to one of them"
        )
    wanted = "; ".join(f"{form.name}: {' and '.join(form.keys(answered))}" for form in FORMS.values())
    raise UserError(
        f"{table.source}: its columns ({columns}) are those of no form that is known ({wanted}). Say which column is "
        f"what, for example data.prompt={next(iter(table.columns), 'question')} and data.completion=…"
    )


def line_table(lines: Sequence[str], data: ChatData) -> Table:
    """A table whose rows ask, or begin, with these texts."""
    form = FORMS[data.form or "prompt"]
    cells = [form.line(line) for line in lines]
    return Table("what was given", {getattr(data, form.asks): cells}, list(range(1, len(lines) + 1)))


def learned(found: Conversations, table: Table, data: ChatData) -> Examples:
    """Examples of conversations that end with responses: equal prompts are a group, of texts equal texts."""
    assert found.responses is not None  # they are answered
    seen = unlabelled(found)
    if data.group is not None:
        groups = table.column(data.group, "group")
    else:
        groups = [
            _plain(response if isinstance(response, str) else _asked(prompt))
            for prompt, response in zip(found.prompts, found.responses, strict=True)
        ]
    return seen.labelled(list(found.responses), groups, ["all"] * len(groups))


def unlabelled(found: Conversations) -> Examples:
    """What is asked, with its tools where any row has some."""
    tools = {"tools": found.tools} if any(found.tools) else {}
    return Examples.unlabelled({"prompt": found.prompts, **tools})


def write_conversations(examples: Examples, path: Path, data: ChatData) -> Path:
    """Write examples as JSON Lines that are read again, in the form that `data` names, else in that of `messages`."""
    tools = examples.inputs.get("tools") or [None] * len(examples)
    texts = all(isinstance(response, str) for response in examples.labels or [])
    form = FORMS[data.form or ("text" if texts else "messages")]
    lines = []
    for prompt, response, tool in zip(examples.inputs["prompt"], examples.labels or [], tools, strict=True):
        row = form.row(prompt, response)
        columns = {getattr(data, key): value for key, value in row.items()}
        lines.append(columns | ({data.tools: tool} if form.has_tools and any(tools) else {}))
    file = path.with_name(f"{path.name}.jsonl")
    write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return file


@dataclass(frozen=True)
class Form:
    """A form of rows.

    Attributes:
        name: as `data.form` has it.
        asks: the key of the column that asks.
        answers: the key of the column that answers; None: the same.
        read: prompts and responses of a table.
        row: a row's columns by their keys, of a prompt and a response.
        line: what a row's cell holds that asks with a text.
        has_tools: whether a column of tools may be beside it.
    """

    name: FormName
    asks: str
    answers: str | None
    read: Callable[[Table, ChatData, bool], tuple[list[list[Message]], list[Message | str]]]
    row: Callable[[list[Message], Any], dict[str, Any]]
    line: Callable[[str], Any]
    has_tools: bool = False

    def keys(self, answered: bool) -> list[str]:
        """The keys of columns that have to be there."""
        return [self.asks, *([self.answers] if answered and self.answers else [])]


def _lists(key: str, parse: Callable[[Any], list[Message]]) -> Callable[..., Any]:
    """Reads a column of lists of messages."""

    def read(table: Table, data: ChatData, answered: bool) -> tuple[list[list[Message]], list[Message | str]]:
        name = getattr(data, key)

        def checked(cell: Any) -> list[Message]:
            messages = parse(cell)
            if answered and messages[-1]["role"] != "assistant":
                raise ValueError(
                    f"the conversation ends with {messages[-1]['role']!r}, and nothing answers; delete the row or its "
                    f"last message"
                )
            if answered and not any(map(is_response, messages)):
                raise ValueError("every response has weight 0, so nothing is learned; delete the row")
            return messages

        found = _each(table, name, key, checked)
        if not answered:
            return found, []
        return [messages[:-1] for messages in found], [messages[-1] for messages in found]

    return read


def _read_alpaca(table: Table, data: ChatData, answered: bool) -> tuple[list[list[Message]], list[Message | str]]:
    asked = table.column(data.instruction, "instruction")
    more = (
        [as_text(cell) for cell in table.values(data.input, "input", True)]
        if data.input in table
        else [""] * len(table)
    )
    prompts = [[_user(f"{one}\n\n{other}" if other.strip() else one)] for one, other in zip(asked, more, strict=True)]
    return prompts, [_assistant(text) for text in table.column(data.output, "output")] if answered else []


def _read_prompt(table: Table, data: ChatData, answered: bool) -> tuple[list[list[Message]], list[Message | str]]:
    def asked(cell: Any) -> list[Message]:
        if not is_openai(cell):
            return [_user(as_text(cell))]
        return [m | ({"weight": 0} if m["role"] == "assistant" else {}) for m in openai_messages(cell)]

    def completed(cell: Any) -> Message:
        if not is_openai(cell):
            return _assistant(as_text(cell))
        messages = openai_messages(cell)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise ValueError("a completion is one message of the assistant; use the form messages for longer ones")
        return messages[0]

    prompts = _each(table, data.prompt, "prompt", asked)
    return prompts, list(_each(table, data.completion, "completion", completed)) if answered else []


def _read_text(table: Table, data: ChatData, answered: bool) -> tuple[list[list[Message]], list[Message | str]]:
    texts = table.column(data.text, "text")
    if answered:
        return [[] for _ in texts], list(texts)
    return [[{"role": "text", "content": text}] for text in texts], []


def _each(table: Table, name: str, field: str, parse: Callable[[Any], Any]) -> list[Any]:
    """What `parse` makes of each cell; what it raises is told with the row."""
    found = []
    for row, cell in enumerate(table.values(name, field, allow_empty=field == "tools")):
        try:
            found.append(parse(cell))
        except ValueError as error:
            raise UserError(f"data.{field} = {name!r}: {table.places([row])} of {table.source}: {error}") from None
    return found


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _asked(prompt: Sequence[Message]) -> str:
    return "\n".join(content_of(message) for message in prompt if message["role"] != "system")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "messages",
            "messages",
            None,
            _lists("messages", openai_messages),
            lambda prompt, response: {"messages": [*prompt, response]},
            lambda text: [_user(text)],
            has_tools=True,
        ),
        Form(
            "conversations",
            "conversations",
            None,
            _lists("conversations", sharegpt_messages),
            lambda prompt, response: {"conversations": [_sharegpt(each) for each in (*prompt, response)]},
            lambda text: [_sharegpt(_user(text))],
            has_tools=True,
        ),
        Form(
            "alpaca",
            "instruction",
            "output",
            _read_alpaca,
            lambda prompt, response: {"instruction": content_of(prompt[-1]), "output": content_of(response)},
            str,
        ),
        Form(
            "prompt",
            "prompt",
            "completion",
            _read_prompt,
            lambda prompt, response: {"prompt": prompt, "completion": [response]},
            str,
        ),
        Form("text", "text", None, _read_text, lambda prompt, response: {"text": response}, str),
    )
}
"""The forms by name."""


def _sharegpt(message: Message) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    if message.get("tool_calls"):
        return {"from": "function_call", "value": json.dumps(message["tool_calls"][0]["function"])}
    weight = {"weight": message["weight"]} if "weight" in message else {}
    return {"from": names.get(message["role"], message["role"]), "value": content_of(message), **weight}


def doubts_about_turns(examples: Examples, where: str) -> Iterator[str]:
    """What is doubtful about conversations, a sentence each."""
    if any(isinstance(response, str) for response in examples.labels or []):
        yield f"{where}: texts as they are: every token of them is learned, no template is used"
