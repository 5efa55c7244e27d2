"""Which tokens are learned, by the templates of four families of models, against a plain loop; what is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from structune.data.examples import Examples
from structune.errors import UserError
from structune.tasks.parts.chats.rendering import Renderer
from structune.tasks.parts.chats.templates import ALPACA, CHATML, PLAIN
from structune.tasks.parts.chats.tokens import (
    Whole,
    cut,
    doubts_about_tokens,
    encode_chats,
    stop_token,
)
from structune.tasks.task import IGNORED

from ...chats import chat_tokenizer
from .real_templates import REAL

Message = dict[str, Any]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


SYSTEM: Message = {"role": "system", "content": "say please"}
ONE = [user("what is one and two"), assistant("the answer is three")]
SEVERAL = [
    *ONE,
    user("and four?"),
    assistant("seven — größer, 答え"),
    user("good morning"),
    assistant("say hello\n\nplease"),
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a sum", "parameters": {"type": "object"}}}]
CALLED = [
    user("add one and two"),
    assistant("", tool_calls=[{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]),
    {"role": "tool", "content": "3"},
    assistant("the answer is 3"),
]


def examples(conversation: list[Message], tools: Any = None) -> Examples:
    seen = Examples.unlabelled({"prompt": [conversation[:-1]], "tools": [tools]})
    return seen.labelled([conversation[-1]], ["a"], ["all"])


def oracle(tokenizer: Any, conversation: list[Message], tools: Any) -> tuple[list[int], list[int]]:
    """Tokens and labels by a loop over prefixes, each tokenised for itself: what a response adds to them is learned."""

    def ids(messages: list[Message], answer: bool) -> list[int]:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=answer)
        return list(tokenizer.encode(text, add_special_tokens=False))

    whole = ids(conversation, False)
    labels = [IGNORED] * len(whole)
    for turn, message in enumerate(conversation):
        if message["role"] == "assistant" and message.get("weight") != 0:
            before, after = ids(conversation[:turn], True), ids(conversation[: turn + 1], False)
            assert whole[: len(before)] == before and whole[: len(after)] == after
            labels[len(before) : len(after)] = after[len(before) :]
    return whole, labels


@pytest.fixture(scope="module", params=REAL)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return chat_tokenizer(request.param)


def encoded(tokenizer: Any, conversation: list[Message], tools: Any = None, most: int = 1000) -> Mapping[str, Any]:
    (row,) = encode_chats(examples(conversation, tools), tokenizer, most)
    return row


@pytest.mark.parametrize("conversation", [ONE, SEVERAL], ids=["one turn", "several turns"])
def test_every_response_is_learned_and_nothing_else(tokenizer: Any, conversation: list[Message]) -> None:
    """Token by token; the end of each turn too."""
    row = encoded(tokenizer, conversation)
    ids, labels = oracle(tokenizer, conversation, None)
    assert row["input_ids"].tolist() == ids
    assert row["labels"].tolist() == labels
    learned = [label for label in labels if label != IGNORED]
    assert 0 < len(learned) < len(labels)
    said = tokenizer.decode(learned, skip_special_tokens=True)
    assert all(message["content"] in said for message in conversation if message["role"] == "assistant")
    assert not any(message["content"] in said for message in conversation if message["role"] == "user")
    assert stop_token(tokenizer) in learned


def test_a_response_of_no_weight_is_not_learned(tokenizer: Any) -> None:
    conversation = [SEVERAL[0], {**SEVERAL[1], "weight": 0}, *SEVERAL[2:]]
    row = encoded(tokenizer, conversation)
    assert row["labels"].tolist() == oracle(tokenizer, conversation, None)[1]
    learned = tokenizer.decode(row["labels"][row["labels"] != IGNORED])
    assert "the answer is three" not in learned and "say hello" in learned


def test_what_is_asked_is_what_stands_before_the_last_response(tokenizer: Any) -> None:
    """A prompt alone has the tokens that it is learned with."""
    row = encoded(tokenizer, SEVERAL)
    (asked,) = encode_chats(Examples.unlabelled({"prompt": [SEVERAL[:-1]]}), tokenizer, 1000)
    assert "labels" not in asked
    assert asked["input_ids"].tolist() == row["input_ids"][: row["answer"]].tolist()
    answer = row["input_ids"][row["answer"] :]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip() == SEVERAL[-1]["content"]


def test_tools_and_calls() -> None:
    """A call is a response, what a tool gives back is none."""
    tokenizer = chat_tokenizer("qwen2.5")
    row = encoded(tokenizer, CALLED, TOOLS)
    assert row["labels"].tolist() == oracle(tokenizer, CALLED, TOOLS)[1]
    assert "a sum" in tokenizer.decode(row["input_ids"])
    learned = tokenizer.decode(row["labels"][row["labels"] != IGNORED])
    assert '"arguments": {"a": 1, "b": 2}' in learned and "tool_response" not in learned
    told = list(doubts_about_tokens([examples(CALLED, TOOLS)], chat_tokenizer("smollm2"), 1000))
    assert any("no place for tools" in doubt for doubt in told)
    assert not list(doubts_about_tokens([examples(CALLED, TOOLS)], tokenizer, 1000))


def test_marks_in_a_template_are_believed() -> None:
    """With a system's message and weights; the oracle is the template without them."""
    marked = CHATML.replace(
        "{{ message['content'] }}<|im_end|>\n",
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>\n{% endgeneration %}"
        "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}",
    )
    conversation = [SYSTEM, SEVERAL[0], {**SEVERAL[1], "weight": 0}, *SEVERAL[2:]]
    with_marks, without = chat_tokenizer(template=marked), chat_tokenizer(template=CHATML)
    row = encoded(with_marks, conversation)
    assert (row["input_ids"].tolist(), row["labels"].tolist()) == oracle(without, conversation, None)


def test_a_template_that_rewrites_what_was_said_is_refused_or_known() -> None:
    forgetful = CHATML.replace(
        "{{ message['content'] }}", "{{ message['content'] if loop.last or message['role'] == 'user' else '…' }}"
    )
    assert encoded(chat_tokenizer(template=forgetful), ONE)["labels"].max() > 0
    with pytest.raises(UserError, match="otherwise than the whole"):
        encoded(chat_tokenizer(template=forgetful), SEVERAL)
    from importlib.resources import files

    qwen3 = (files("trl") / "chat_templates" / "qwen3.jinja").read_text()  # leaves out earlier thoughts
    thought = [
        user("one"),
        assistant("<think>\nhm\n</think>\n\ntwo"),
        user("three"),
        assistant("<think>\nso\n</think>\n\nsix"),
    ]
    tokenizer = chat_tokenizer(template=qwen3)
    learned = encoded(tokenizer, thought)
    said = tokenizer.decode(learned["labels"][learned["labels"] != IGNORED])
    assert all(word in said for word in ("hm", "two", "so", "six"))
    assert "three" not in said
    (told,) = doubts_about_tokens([examples(thought)], tokenizer, 1000)
    assert "the one that TRL has for training it" in told


def test_a_conversation_that_the_template_refuses_is_told() -> None:
    with pytest.raises(UserError, match=r"refuses a conversation \(system, user, assistant\).*must alternate"):
        encoded(chat_tokenizer("mistral"), [SYSTEM, *ONE])
    bare = chat_tokenizer()
    bare.chat_template = None
    with pytest.raises(UserError, match="has none; name one: chatml"):
        Renderer(bare)


@pytest.mark.parametrize("template", [CHATML, ALPACA, PLAIN], ids=["chatml", "alpaca", "plain"])
def test_templates_by_name_end_responses(template: str) -> None:
    tokenizer = chat_tokenizer("mistral", template)
    row = encoded(tokenizer, ONE)
    said = tokenizer.decode(row["labels"][row["labels"] != IGNORED])
    assert said.strip() == {CHATML: "the answer is three<|im_end|>"}.get(template, "the answer is three</s>")
    assert encoded(tokenizer, SEVERAL)["labels"].max() > 0


def test_texts_are_learned_whole() -> None:
    tokenizer = chat_tokenizer("mistral")
    text = Examples.unlabelled({"prompt": [[]]}).labelled(["the answer is one"], ["a"], ["all"])
    (row,) = encode_chats(text, tokenizer, 1000)
    assert row["labels"].tolist() == row["input_ids"].tolist()
    assert tokenizer.decode(row["input_ids"]) == "the answer is one</s>"
    (asked,) = encode_chats(Examples.unlabelled({"prompt": [[{"role": "text", "content": "the"}]]}), tokenizer, 1000)
    assert tokenizer.decode(asked["input_ids"]) == "the"


def test_a_token_across_the_beginning_is_learned_and_said() -> None:
    """`plain` puts a prompt's last letter and a response's first into one token where they are one."""
    tokenizer = chat_tokenizer("mistral", PLAIN)
    row = encoded(tokenizer, [user("say hel"), assistant("lo please")])
    prompt = tokenizer.encode("say hel", add_special_tokens=False)
    assert row["input_ids"][: len(prompt)].tolist() != prompt
    assert "hello" in tokenizer.decode(row["labels"][row["labels"] != IGNORED])
    (told,) = doubts_about_tokens([examples([user("say hel"), assistant("lo please")])], tokenizer, 1000)
    assert "in 1 of 1 conversations a token is part prompt, part response" in told


def test_the_prompt_is_cut_before_the_response() -> None:
    """At every length; a token that begins texts stays, and what is lost is counted."""
    tokenizer = chat_tokenizer("llama-3")
    row = encoded(tokenizer, SEVERAL)
    whole, labels, answer = row["input_ids"].tolist(), row["labels"].tolist(), row["answer"]
    response = len(whole) - answer
    for most in range(1, len(whole) + 2):
        part = encoded(tokenizer, SEVERAL, most=most)
        ids, kept = part["input_ids"].tolist(), part["labels"].tolist()
        assert len(ids) == min(most, len(whole))
        if most <= response:  # of the response its end is lost, and all of the prompt
            assert ids == whole[answer : answer + most]
            assert kept == ids
        elif most < len(whole):
            assert ids[0] == tokenizer.bos_token_id
            assert ids[1:] == whole[-(most - 1) :]
            assert kept[1:] == labels[-(most - 1) :]
            assert ids[part["answer"] :] == whole[answer:]
    short = encoded(tokenizer, ONE)
    assert len(short["input_ids"]) - short["answer"] < response < len(short["input_ids"])
    (told,) = doubts_about_tokens([examples(SEVERAL), examples(ONE)], tokenizer, response - 1)
    assert told == (
        f"data.max_length = {response - 1}: 2 of 2 conversations lose the front of their prompts; 1 are longer by "
        f"their response alone, and lose its end; the longest has {len(whole)} tokens"
    )
    assert not list(doubts_about_tokens([examples(SEVERAL)], tokenizer, len(whole)))


def test_without_a_first_token_the_front_goes() -> None:
    ids = np.arange(10, dtype=np.int32)
    found, learned, answer = cut(Whole(ids, ids >= 7, 7, 0), 5, None)
    assert found.tolist() == [5, 6, 7, 8, 9]
    assert learned.tolist() == [False, False, True, True, True]
    assert answer == 2
