"""Scores against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from structune.tasks.parts.classes.confusion import confusion, per_class, scores

TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 1])
COUNTS = [[3, 1, 0], [1, 2, 0], [0, 1, 0]]


def test_confusion_counts_true_by_predicted() -> None:
    assert confusion(PREDICTED, TRUE, 3).tolist() == COUNTS


def test_scores_by_hand() -> None:
    result = scores(np.array(COUNTS))
    assert result["accuracy"] == 5 / 8
    assert result["f1"] == pytest.approx((6 / 8 + 4 / 7 + 0) / 3)
    # c·s − Σ p·t = 5·8 − (4·4 + 4·3 + 0·1) = 12;  s² − Σ p² = 64 − 32;  s² − Σ t² = 64 − 26
    assert result["matthews"] == pytest.approx(12 / np.sqrt(32 * 38))


def test_two_classes_give_the_usual_matthews_correlation() -> None:
    tn, fp, fn, tp = 50, 10, 5, 35
    usual = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores(np.array([[tn, fp], [fn, tp]]))["matthews"] == pytest.approx(usual)


def test_per_class_by_hand() -> None:
    rows = per_class(np.array(COUNTS))
    assert rows[0] == {"precision": 3 / 4, "recall": 3 / 4, "f1": 6 / 8, "examples": 4}
    assert rows[1]["precision"] == 2 / 4
    assert rows[1]["recall"] == pytest.approx(2 / 3)
    assert rows[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 1}


def test_one_predicted_class_has_no_correlation() -> None:
    assert scores(np.array([[4, 0], [4, 0]])) == {"accuracy": 0.5, "f1": pytest.approx(1 / 3), "matthews": 0.0}
