"""Automatic label matching: which outputs of a pretrained classifier answer for the classes of another task.

Nothing is trained for it. The frozen classifier answers for the examples to train on, and a table counts its answers:
N (T, S), with T target classes, S source outputs, and N[t, s] examples of class t that were answered with s. From it
comes a map M (T, S) whose rows sum to one, and the targets' logits are M z, of the source logits z:

- `match`: a one in each row, at a source of the target's own, so that as many examples as can be are answered right
  (HyDRA, MERL TR2024-157, section 4; arXiv 2211.11635);
- `bayes`: how much each source speaks for the target (arXiv 2410.24018, Bayesian-guided label mapping).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from structune.errors import UserError

Counts = NDArray[np.int64]
Map = NDArray[np.float64]
How = Literal["match", "bayes"]

SMOOTHING = 1.0
"""λ of `bayes`, as in the paper."""


def match(counts: Counts) -> list[int]:
    """A source for each target, no source twice, so that Σ_t N[t, source of t] is as large as can be.

    Args:
        counts: N (T, S).

    Raises:
        UserError: there are more targets than sources.
    """
    from scipy.optimize import linear_sum_assignment

    targets, sources = counts.shape
    check_enough(targets, sources)
    return [int(source) for source in linear_sum_assignment(counts, maximize=True)[1]]


def bayes(counts: Counts, smoothing: float = SMOOTHING) -> Map:
    """M[t, s] = P(t | s) / Σ_s' P(t | s'), with P(t | s) = N[t, s] / (Σ_t' N[t', s] + λ).

    Sources that were never an answer have weight 0, and λ makes less of those that seldom were.

    Args:
        counts: N (T, S), none of its rows zero.
        smoothing: λ.

    Raises:
        ValueError: a target has no example.
    """
    if not counts.any(1).all():
        raise ValueError(f"targets {np.flatnonzero(~counts.any(1)).tolist()} have no examples")
    speaks_for = counts / np.maximum(counts.sum(0) + smoothing, np.finfo(float).tiny)
    return np.asarray(speaks_for / speaks_for.sum(1, keepdims=True))


def check_enough(targets: int, sources: int) -> None:
    """Raises `UserError` when there are more targets than sources to give one each."""
    if targets > sources:
        raise UserError(
            f"task.head = 'match': {targets} classes, but the pretrained head has {sources} outputs, and each class "
            f"needs one of its own; use task.head: bayes, task.head: new, or a model with more outputs"
        )


@dataclass(frozen=True)
class Matching:
    """What was found out, as it is kept with a run.

    Args:
        how: which kind of map.
        counts: N (T, S).
        weights: M (T, S).
        sources: names of the S outputs.
        epoch: at the start of which epoch the answers were counted.
    """

    how: How
    counts: Counts
    weights: Map
    sources: Sequence[str]
    epoch: int = 0

    @classmethod
    def of(cls, how: How, counts: Counts, sources: Sequence[str], epoch: int = 0) -> Matching:
        """The map that the counts give."""
        if how == "bayes":
            return cls(how, counts, bayes(counts), sources, epoch)
        weights = np.zeros(counts.shape)
        weights[np.arange(len(counts)), match(counts)] = 1.0
        return cls(how, counts, weights, sources, epoch)

    def to_json(self) -> dict[str, Any]:
        """As JSON: of each target the sources with their counts, and those of the map with their weights."""
        kept = np.flatnonzero(self.counts.any(0) | self.weights.any(0))
        return {
            "how": self.how,
            "epoch": self.epoch,
            "sources": len(self.sources),
            "names": {str(source): self.sources[source] for source in kept.tolist()},
            "counts": [[[int(s), int(row[s])] for s in np.flatnonzero(row)] for row in self.counts],
            "weights": [[[int(s), float(row[s])] for s in np.flatnonzero(row)] for row in self.weights],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Matching:
        """What `to_json` wrote; only sources that are in it have their names again."""
        shape = (len(content["weights"]), content["sources"])
        counts, weights = np.zeros(shape, np.int64), np.zeros(shape)
        for whole, key in ((counts, "counts"), (weights, "weights")):
            for target, pairs in enumerate(content[key]):
                for source, value in pairs:
                    whole[target, source] = value
        names = [content["names"].get(str(source), str(source)) for source in range(shape[1])]
        return cls(content["how"], counts, weights, names, content["epoch"])

    def rows(self, targets: Sequence[str], most: int = 3) -> dict[str, dict[str, Any]]:
        """A row for each target: its sources, the heaviest first, with how many of its examples they answered.

        Args:
            targets: names of the T classes.
            most: how many sources are named.
        """
        table: dict[str, dict[str, Any]] = {}
        for name, counts, weights in zip(targets, self.counts, self.weights, strict=True):
            order = np.argsort(-weights, kind="stable")[:most]
            used = [int(source) for source in order if weights[source] > 0]
            table[name] = {
                "source": ", ".join(self.sources[source] for source in used),
                "answered": sum(int(counts[source]) for source in used),
                "examples": int(counts.sum()),
            }
        return table

    def unanswered(self) -> list[int]:
        """Targets for none of whose examples their source was the answer: what was left for them is arbitrary."""
        return [t for t, (row, weights) in enumerate(zip(self.counts, self.weights, strict=True)) if not row @ weights]
