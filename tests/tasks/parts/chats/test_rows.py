"""Which form rows have, what conversation each holds, and what is told of rows that hold none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from structune.data.sources import load_file
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.chats.rows import (
    ChatData,
    conversations,
    form_of,
    learned,
    line_table,
    write_conversations,
)


def table(**columns: list[Any]) -> Table:
    count = len(next(iter(columns.values())))
    return Table("rows.jsonl", columns, list(range(1, count + 1)))


def data(**given: Any) -> ChatData:
    return ChatData(train="rows.jsonl", **given)


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


ASKED, SAID = user("one and two?"), assistant("three")
FORMS: dict[str, dict[str, list[Any]]] = {
    "messages": {"messages": [[ASKED, SAID]]},
    "conversations": {
        "conversations": [[{"from": "human", "value": "one and two?"}, {"from": "gpt", "value": "three"}]]
    },
    "alpaca": {"instruction": ["one and two?"], "input": [""], "output": ["three"]},
    "prompt": {"prompt": ["one and two?"], "completion": ["three"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_conversation(form: str) -> None:
    """As cells, and as texts of JSON, as CSV has them."""
    columns = FORMS[form]
    as_json = {
        name: [cell if isinstance(cell, str) else json.dumps(cell) for cell in cells] for name, cells in columns.items()
    }
    for given in (columns, as_json):
        rows = table(**given)
        assert form_of(rows, data(), answered=True) == form
        found = conversations(rows, data(), answered=True)
        assert (found.prompts, found.responses, found.tools) == ([[ASKED]], [SAID], [None])
        assert conversations(rows, data(form=form), answered=True) == found


def test_several_turns_tools_and_weights() -> None:
    turns = [
        {"role": "system", "content": "be kind"},
        ASKED | {"name": None},  # as tables have keys that other messages have
        assistant("", tool_calls=[{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]),
        {"role": "tool", "content": "3", "tool_call_id": "x"},
        assistant("three", weight=0),
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "four?"}]},
        assistant("seven"),
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    found = conversations(table(messages=[turns], tools=[json.dumps(tools)]), data(), answered=True)
    assert found.tools == [tools]
    assert found.responses == [turns[-1]]
    assert [message["role"] for message in found.prompts[0]] == [turn["role"] for turn in turns[:-1]]
    assert "name" not in found.prompts[0][1]
    assert found.prompts[0][-1]["content"] == "and four?"
    shared = [
        {"from": "system", "value": "be kind"},
        {"from": "human", "value": "one?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "one"},
    ]
    (prompt,) = conversations(table(conversations=[shared]), data(), answered=True).prompts
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "tool"]
    assert prompt[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


def test_alpaca_with_an_input_and_columns_by_other_names() -> None:
    rows = table(task=["Sum up."], context=["One, two."], answer=["Numbers."])
    found = conversations(rows, data(instruction="task", input="context", output="answer"), answered=True)
    assert found.prompts == [[user("Sum up.\n\nOne, two.")]]
    assert found.responses == [assistant("Numbers.")]


def test_prompts_of_messages_teach_their_completion_alone() -> None:
    rows = table(prompt=[[ASKED, SAID, user("again?")]], completion=[[assistant("three again")]])
    found = conversations(rows, data(), answered=True)
    assert found.prompts == [[ASKED, SAID | {"weight": 0}, user("again?")]]
    assert found.responses == [assistant("three again")]


def test_a_system_message_stands_before_conversations_that_have_none() -> None:
    rows = table(messages=[[ASKED, SAID], [{"role": "system", "content": "own"}, ASKED, SAID]])
    found = conversations(rows, data(system="be kind"), answered=True)
    assert [prompt[0]["content"] for prompt in found.prompts] == ["be kind", "own"]


def test_rows_without_responses_are_asked() -> None:
    """Columns of responses need not be there; a line is a question, or the beginning of a text."""
    assert conversations(table(prompt=["one?"]), data(), answered=False).prompts == [[user("one?")]]
    assert conversations(table(messages=[[ASKED]]), data(), answered=False).prompts == [[ASKED]]
    for form in (None, "messages", "conversations", "alpaca", "prompt"):
        lines = line_table(["one?"], data(form=form))
        assert conversations(lines, data(form=form), answered=False).prompts == [[user("one?")]]
    lines = line_table(["once upon"], data(form="text"))
    assert conversations(lines, data(form="text"), answered=False).prompts == [
        [{"role": "text", "content": "once upon"}]
    ]


def test_equal_prompts_are_a_group() -> None:
    rows = table(prompt=["One  and TWO?", "one and two?", "other"], completion=["a", "b", "c"])
    groups = learned(conversations(rows, data(), answered=True), rows, data()).groups
    assert groups[0] == groups[1] != groups[2]
    texts = table(text=["Some text", "some  text", "more"])
    groups = learned(conversations(texts, data(), answered=True), texts, data()).groups
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize("form", [*FORMS, "text", None])
def test_what_is_written_is_read_again(form: Any, tmp_path: Path) -> None:
    columns = FORMS.get(form or "messages", {"text": ["three"]})
    rows = table(**{name: cells * 2 for name, cells in columns.items()})
    before = learned(conversations(rows, data(form=form), answered=True), rows, data(form=form))
    path = write_conversations(before, tmp_path / "part", data(form=form))
    again = load_file(path, data(form=form))
    after = learned(conversations(again, data(form=form), answered=True), again, data(form=form))
    assert list(after.rows()) == list(before.rows())


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"question": ["a"], "answer": ["b"]}, {}, r"of no form that is known .*data\.prompt=question"),
        (FORMS["prompt"] | {"text": ["a"]}, {}, r"could be prompt or text; set data\.form to one of them"),
        ({"messages": [[ASKED]]}, {}, r"line 1 of rows\.jsonl: the conversation ends with 'user', and nothing answers"),
        ({"messages": [[ASKED, SAID | {"weight": 0}]]}, {}, "every response has weight 0"),
        ({"messages": [[{"role": "robot", "content": "x"}]]}, {}, "message 1 has the role 'robot'; known: system"),
        ({"messages": [["x"]]}, {}, "message 1 has no role"),
        ({"messages": ["hello"]}, {}, "there is no list of messages"),
        ({"messages": [[ASKED, assistant("")]]}, {}, "message 2, the assistant's, is empty"),
        ({"messages": [[{"role": "user", "content": [{"type": "image"}]}]]}, {}, "only texts are read"),
        ({"messages": [[ASKED, SAID]], "tools": ["no"]}, {}, r"data\.tools.*list of JSON schemas"),
        ({"conversations": [[{"from": "cat", "value": "x"}]]}, {}, "message 1 is from 'cat'; known: human"),
        ({"conversations": [[{"from": "function_call", "value": "x"}]]}, {}, "no JSON with a name"),
        ({"prompt": ["a"], "completion": [[ASKED, SAID]]}, {}, "one message of the assistant"),
        ({"prompt": ["a"], "completion": [""]}, {}, r"data\.completion.*nothing there"),
        ({"prompt": ["a"]}, {"form": "prompt"}, r"data\.completion = 'completion': .*no such column"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_told(columns: dict[str, list[Any]], given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        conversations(table(**columns), data(**given), answered=True)
