"""Entities and their scores against plain loops."""

from __future__ import annotations

import random

import pytest

from structune.tasks.parts.words.entities import entities, per_entity, scores
from structune.tasks.parts.words.tags import tags_in_order

TAGS = ["O", "B-place", "I-place", "B-person", "I-person"]


def spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """Entities word by word: one begins at a B-, or at an I- of another kind than the word before."""
    found, begun = set(), None
    for place, tag in enumerate([*tags, "O"]):
        kind = tag[2:]
        before = tags[place - 1] if place else "O"
        if begun is not None and (tag[0] != "I" or kind != before[2:]):
            found.add((before[2:], begun, place - 1))
            begun = None
        if begun is None and tag != "O":
            begun = place
    return found


def some(seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices(TAGS, weights=[4, 2, 3, 1, 1], k=rng.randint(1, 9)) for _ in range(60)]


def test_entities_word_by_word() -> None:
    for tags in some(0):
        assert set(entities(tags)) == spans(tags)
    assert entities(["NOUN", "NOUN", "O", "VERB"]) == [("NOUN", 0, 0), ("NOUN", 1, 1), ("VERB", 3, 3)]


def test_scores_against_counts_of_spans() -> None:
    true = some(1)
    rng = random.Random(2)
    answered = [[tag if rng.random() < 0.8 else rng.choice(TAGS) for tag in row] for row in true]
    there = {(row, *span) for row, tags in enumerate(true) for span in spans(tags)}
    said = {(row, *span) for row, tags in enumerate(answered) for span in spans(tags)}
    found = scores(answered, true)
    assert found["precision"] == pytest.approx(len(there & said) / len(said))
    assert found["recall"] == pytest.approx(len(there & said) / len(there))
    assert found["f1"] == pytest.approx(2 * len(there & said) / (len(there) + len(said)))
    pairs = [pair for rows in zip(true, answered, strict=True) for pair in zip(*rows, strict=True)]
    assert found["token_accuracy"] == sum(one == other for one, other in pairs) / len(pairs)
    assert 0.2 < found["f1"] < found["token_accuracy"] < 0.95
    rows = per_entity(answered, true)
    for kind in ("place", "person"):
        both, one, other = (sum(span[1] == kind for span in part) for part in (there & said, said, there))
        assert rows[kind] == pytest.approx(
            {"precision": both / one, "recall": both / other, "f1": 2 * both / (one + other), "examples": other}
        )


def test_no_entity_at_all() -> None:
    assert scores([["O", "O"]], [["O", "O"]]) == {"f1": 0, "precision": 0, "recall": 0, "token_accuracy": 1}
    assert scores([["B-x"]], [["O"]])["f1"] == 0


def test_tags_in_order() -> None:
    assert tags_in_order({"I-b", "B-b", "O", "B-a"}) == ["O", "B-a", "B-b", "I-b"]
