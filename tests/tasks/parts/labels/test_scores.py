"""Scores of sets of labels against scikit-learn, and by hand."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from structune.tasks.parts.labels.scores import best_constant, per_label, present, probabilities, scores


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((200, 7)) < [0.5, 0.3, 0.2, 0.1, 0.1, 0.0, 0.4]
    answered = np.where(rng.random(true.shape) < 0.8, true, rng.random(true.shape) < 0.2)
    answered[:, 5:] = False
    found = scores(answered, true)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("micro", "macro"):
            expected = metrics.f1_score(true, answered, average=average, zero_division=0)
            assert found[f"f1_{average}"] == pytest.approx(expected)
        assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(true, answered))
        precision, recall, f1, examples = metrics.precision_recall_fscore_support(true, answered, zero_division=0)
    rows = per_label(answered, true)
    assert [list(row.values()) for row in rows] == [
        pytest.approx(row) for row in zip(precision, recall, f1, examples, strict=True)
    ]
    assert len({round(value, 3) for value in found.values()}) == 3


def test_nothing_there_and_nothing_answered() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    assert scores(nothing, nothing) == {"f1_micro": 0.0, "f1_macro": 0.0, "subset_accuracy": 1.0}


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_threshold_is_one_of_probabilities(threshold: float) -> None:
    logits = np.linspace(-700, 800, 4001, dtype=np.float32)
    expected = torch.tensor(logits, dtype=torch.float64).sigmoid().numpy()
    np.testing.assert_allclose(probabilities(logits), expected, rtol=1e-12)
    assert np.array_equal(present(logits, threshold), expected >= threshold)


def test_the_best_constant_answer_against_all_of_them() -> None:
    rng = np.random.default_rng(3)
    names = ["a", "b", "c", "d"]
    for shares in ([0.6, 0.5, 0.1, 0.02], [0.2, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.3]):
        true = rng.random((60, 4)) < shares
        lists = [[name for name, there in zip(names, row, strict=True) if there] for row in true]
        best = 0.0
        for size in range(1, 5):
            for chosen in itertools.combinations(range(4), size):
                constant = np.zeros_like(true)
                constant[:, chosen] = True
                best = max(best, scores(constant, true)["f1_micro"])
        answer, value = best_constant(lists)
        assert value == pytest.approx(best)
        constant = np.broadcast_to([name in answer for name in names], true.shape)
        assert scores(constant, true)["f1_micro"] == pytest.approx(value)
