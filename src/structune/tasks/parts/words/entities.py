"""Entities in tags of words, and how many of them are found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from structune.tasks.parts.words.tags import as_bio

Tags = Sequence[Sequence[str]]
"""A list of tags for each text, one for each word."""


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(name, first word, last word) of each entity, as the CoNLL evaluation reads tags: an I- after an O begins one."""
    from seqeval.metrics.sequence_labeling import get_entities

    return [(str(name), int(first), int(last)) for name, first, last in get_entities(list(map(as_bio, tags)))]


def scores(answered: Tags, true: Tags) -> dict[str, float]:
    """`f1`, `precision` and `recall` of entities (name, first and last word must be right), and `token_accuracy`.

    A share of nothing is 0.
    """
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    parts = _lists(true, answered)
    precision, recall, f1, _ = precision_recall_fscore_support(*parts, average="micro", zero_division=0)
    pairs = [pair for rows in zip(true, answered, strict=True) for pair in zip(*rows, strict=True)]
    right = sum(one == other for one, other in pairs)
    shares = {"f1": f1, "precision": precision, "recall": recall, "token_accuracy": right / max(len(pairs), 1)}
    return {key: float(value) for key, value in shares.items()}


def per_entity(answered: Tags, true: Tags) -> dict[str, dict[str, float]]:
    """`precision`, `recall`, `f1` of each name of entities, and `examples` that there are."""
    from seqeval.metrics import classification_report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where there is no entity at all
        report: dict[str, Any] = classification_report(*_lists(true, answered), output_dict=True, zero_division=0)
    return {
        name: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "examples": int(row["support"]),
        }
        for name, row in report.items()
        if not name.endswith(" avg")
    }


def _lists(*parts: Tags) -> list[list[list[str]]]:
    return [[list(map(as_bio, tags)) for tags in part] for part in parts]
