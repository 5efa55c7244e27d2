"""Rows of pairs: what is prompt, what is response, and what is no pair."""

from __future__ import annotations

from typing import Any

import pytest

from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.chats.messages import content_of
from structune.tasks.parts.preferences.pairs import PairData, doubts_about_pairs, longer_chosen, pairs_of

USER, HELLO, BYE = (
    {"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Hello"), ("assistant", "Bye"))
)
AGAIN = {"role": "user", "content": "Really?"}
SYSTEM = {"role": "system", "content": "Be kind."}


def read(*rows: dict[str, Any], **data: Any) -> list[tuple[Any, ...]]:
    table = Table("pairs.jsonl", {name: [row[name] for row in rows] for name in rows[0]}, list(range(1, len(rows) + 1)))
    return [row for row, _ in pairs_of(table, PairData(train="pairs.jsonl", **data)).rows()]


def test_texts() -> None:
    (found,) = read({"prompt": "Hi", "chosen": "Hello", "rejected": "Bye"})
    assert found == ([USER], [HELLO], [BYE])


def test_messages() -> None:
    assert read({"prompt": [USER], "chosen": [HELLO], "rejected": [BYE]}) == [([USER], [HELLO], [BYE])]


@pytest.mark.parametrize("prompt", [None, "Hi", [USER]])
def test_what_messages_begin_with_alike_is_the_prompt(prompt: Any) -> None:
    """As in data whose responses are whole conversations, with the prompt beside them or not."""
    row = {"chosen": [USER, HELLO], "rejected": [USER, BYE]}
    assert read(row if prompt is None else {"prompt": prompt, **row}) == [([USER], [HELLO], [BYE])]


def test_responses_of_several_messages() -> None:
    chosen, rejected = [USER, HELLO, AGAIN, HELLO], [USER, HELLO, AGAIN, BYE]
    assert read({"chosen": chosen, "rejected": rejected}) == [(chosen[:3], [HELLO], [BYE])]
    rejected = [USER, BYE, AGAIN, HELLO]
    assert read({"chosen": chosen, "rejected": rejected}) == [([USER], chosen[1:], rejected[1:])]


def test_a_prompt_before_what_is_alike() -> None:
    chosen, rejected = [HELLO, AGAIN, HELLO], [HELLO, AGAIN, BYE]
    assert read({"prompt": "Hi", "chosen": chosen, "rejected": rejected}) == [([USER, HELLO, AGAIN], [HELLO], [BYE])]


@pytest.mark.parametrize(
    ("chosen", "rejected", "split"),
    [
        ("Q: is it? A: it is", "Q: is it? A: it isn't", ("Q: is it? A: it", " is", " isn't")),
        ("one two three", "one twelve", ("one", " two three", " twelve")),
        ("Human: a\n\nAssistant: yes", "Human: a\n\nAssistant: no", ("Human: a\n\nAssistant:", " yes", " no")),
        ("a\nyes", "a\nno", ("a\n", "yes", "no")),
    ],
)
def test_what_texts_begin_with_alike(chosen: str, rejected: str, split: tuple[str, str, str]) -> None:
    """To the end of a word, so that no token reaches over it."""
    (found,) = read({"chosen": chosen, "rejected": rejected})
    assert tuple(content_of(part[0]) for part in found) == split
    assert [part[0]["role"] for part in found] == ["user", "assistant", "assistant"]


def test_a_system_message() -> None:
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye"}
    assert read(row, system="Be kind.") == [([SYSTEM, USER], [HELLO], [BYE])]
    own = {"prompt": [SYSTEM, USER], "chosen": [HELLO], "rejected": [BYE]}
    assert read(own, system="Be short.") == [([SYSTEM, USER], [HELLO], [BYE])]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"chosen": "yes", "rejected": "no"}, "line 2 of pairs.jsonl: there is no prompt"),
        ({"prompt": "a", "chosen": "yes", "rejected": [BYE]}, "line 2 of pairs.jsonl: one of chosen and rejected is"),
        ({"prompt": "a", "chosen": 3, "rejected": "no"}, "chosen is neither a text nor a list of messages"),
        ({"chosen": [USER, HELLO], "rejected": [USER]}, "rejected is the beginning of the other"),
        ({"chosen": [USER, HELLO], "rejected": [USER, AGAIN]}, "rejected ends with 'user'"),
        ({"prompt": "a", "chosen": " ", "rejected": "no"}, "have nothing there"),
        ({"prompt": "a", "chosen": "yes"}, "no such column"),
    ],
)
def test_what_is_no_pair(row: dict[str, Any], told: str) -> None:
    texts = {"prompt": "Hi", "chosen": "a Hello", "rejected": "a Bye"}
    with pytest.raises(UserError) as error:
        read({name: texts[name] for name in row}, row)
    assert told in str(error.value)


def test_a_prompt_column_that_is_named_must_be_there() -> None:
    with pytest.raises(UserError, match=r"data.prompt = 'question': pairs.jsonl has no such column"):
        read({"chosen": "a yes", "rejected": "a no"}, prompt="question")


def test_pairs_that_say_nothing() -> None:
    rows = [
        {"prompt": "Hi", "chosen": c, "rejected": r} for c, r in (("a", "a"), ("a", "bb"), ("aaa", "b"), ("a", "b"))
    ]
    table = Table("pairs.jsonl", {name: [row[name] for row in rows] for name in rows[0]}, [1, 2, 3, 4])
    examples = pairs_of(table, PairData(train="pairs.jsonl"))
    assert next(doubts_about_pairs(examples, "to train on")).startswith("1 of 4 pairs to train on have the same")
    assert longer_chosen(examples) == (0.5 + 0 + 1 + 0.5) / 4
    alike = {"chosen": [USER, HELLO], "rejected": [USER, HELLO]}
    assert read(alike) == [([USER], [HELLO], [HELLO])]
