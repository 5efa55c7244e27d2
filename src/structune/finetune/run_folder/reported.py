"""Which score of a run is reported: that on its test part, where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from structune.tasks.task import Metric

CHOSEN_BY = "No test part: scores are on the examples that choices are made by (data.test_examples holds out others)."
"""What must be said of scores on the validation part."""


class Reported(NamedTuple):
    """Where a run's `metrics.json` has the scores that are reported.

    Attributes:
        key: what their names begin with, `test` or `eval`.
        words: what the examples are called.
        baseline: the name of what an answer that never looks would score there.
    """

    key: str
    words: str
    baseline: str

    def score(self, metrics: Mapping[str, Any], metric: Metric) -> float:
        """The value of a metric there."""
        return float(metrics[f"{self.key}_{metric.key}"])

    def examples(self, metrics: Mapping[str, Any]) -> int:
        """How many examples it is on."""
        return int(metrics[f"{self.key}_examples"])


TEST = Reported("test", "test", "test_baseline")
VALIDATION = Reported("eval", "held-out", "baseline")


def reported(*runs: Mapping[str, Any]) -> Reported:
    """Where the runs with these metrics all have what is reported."""
    return TEST if all("test_examples" in metrics for metrics in runs) else VALIDATION
