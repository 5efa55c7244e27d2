"""Which output answers for which class, against brute force and plain loops."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structune.errors import UserError
from structune.tasks.parts.matching.matching import Matching, bayes, match


@st.composite
def tables(draw: st.DrawFn, most: int = 9) -> Any:
    """Counts with at most five targets, each of which has examples."""
    targets = draw(st.integers(1, 5))
    sources = draw(st.integers(targets, 6))
    row = st.lists(st.integers(0, most), min_size=sources, max_size=sources).filter(any)
    return np.array([draw(row) for _ in range(targets)])


@given(counts=tables())
def test_no_other_assignment_answers_more_examples_right(counts: Any) -> None:
    targets, sources = counts.shape
    chosen = match(counts)
    assert len(chosen) == targets == len(set(chosen)) and all(0 <= source < sources for source in chosen)

    def right(assignment: Any) -> int:
        return sum(int(counts[target, source]) for target, source in enumerate(assignment))

    assert right(chosen) == max(map(right, permutations(range(sources), targets)))


def test_a_source_that_most_targets_want_goes_where_it_is_missed_most() -> None:
    """Target by target, the first would take source 0 with 5; then 5 + 0 are right, and not 4 + 4."""
    assert match(np.array([[5, 4, 0], [4, 0, 0]])) == [1, 0]


def test_more_targets_than_sources() -> None:
    with pytest.raises(UserError, match=r"task\.head = 'match': 3 classes, but the pretrained head has 2 outputs"):
        match(np.ones((3, 2), int))


@given(counts=tables(), smoothing=st.sampled_from([0.0, 1.0, 2.5]))
def test_bayes_is_the_papers_formula(counts: Any, smoothing: float) -> None:
    targets, sources = counts.shape
    given_source = [[0.0] * sources for _ in range(targets)]
    for source in range(sources):
        answers = sum(int(counts[target, source]) for target in range(targets))
        for target in range(targets):
            if counts[target, source]:
                given_source[target][source] = int(counts[target, source]) / (answers + smoothing)
    expected = [[value / sum(row) for value in row] for row in given_source]
    np.testing.assert_allclose(bayes(counts, smoothing), expected, rtol=1e-12, atol=0)


@given(counts=tables())
def test_bayes_is_a_mean_of_logits(counts: Any) -> None:
    """What is added to all logits of the sources is added to all of the targets, and says nothing."""
    weights = bayes(counts)
    np.testing.assert_allclose(weights @ np.full(counts.shape[1], 3.0), 3.0)
    assert (weights >= 0).all() and (weights[counts == 0] == 0).all()


def test_bayes_without_examples_of_a_target() -> None:
    with pytest.raises(ValueError, match=r"targets \[1\] have no examples"):
        bayes(np.array([[1, 0], [0, 0]]))


@given(counts=tables(most=3), how=st.sampled_from(["match", "bayes"]))
def test_what_is_kept_with_a_run_reads_back_to_the_bit(counts: Any, how: Any) -> None:
    names = [f"output {number}" for number in range(counts.shape[1])]
    matching = Matching.of(how, counts, names, epoch=2)
    back = Matching.from_json(json.loads(json.dumps(matching.to_json())))
    assert (back.how, back.epoch) == (how, 2)
    assert np.array_equal(back.counts, counts) and np.array_equal(back.weights, matching.weights)
    targets = [f"class {number}" for number in range(len(counts))]
    assert back.rows(targets) == matching.rows(targets)
    assert all(back.sources[source] == names[source] for source in np.flatnonzero(counts.any(0)))


def test_the_table_says_what_answers_and_how_often() -> None:
    counts = np.array([[7, 0, 2, 0], [1, 0, 6, 3], [0, 0, 4, 0]])
    names = ["cat", "dog", "fish", "bird"]
    matching = Matching.of("match", counts, names)
    assert matching.rows(["a", "b", "c"]) == {
        "a": {"source": "cat", "answered": 7, "examples": 9},
        "b": {"source": "bird", "answered": 3, "examples": 10},
        "c": {"source": "fish", "answered": 4, "examples": 4},
    }
    assert matching.unanswered() == []
    assert Matching.of("bayes", counts, names).rows(["a", "b", "c"])["b"] == {
        "source": "bird, fish, cat", "answered": 10, "examples": 10,
    }  # fmt: skip


def test_a_target_that_no_output_was_left_for_is_known() -> None:
    matching = Matching.of("match", np.array([[5, 0], [3, 0]]), ["one", "other"])
    assert matching.unanswered() == [1]
