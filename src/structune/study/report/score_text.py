"""How scores are written in tables and figures of studies: shares and correlations times a hundred."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from structune.tasks.task import Metric


def factor(metric: Metric) -> int:
    """Shares and correlations are shown times a hundred, anything else as it is."""
    return 100 if metric.range[1] == 1 else 1


def titled(metric: Metric) -> str:
    """The score's name with what it is multiplied by."""
    return f"{metric.title}{' × 100' if factor(metric) > 1 else ''}"


def one_unit(metrics: Iterable[Metric]) -> bool:
    """Whether differences of all these scores can be averaged; of none they cannot."""
    return len({(factor(metric), "" if factor(metric) > 1 else metric.key) for metric in metrics}) == 1


def digits(metric: Metric) -> int:
    """How many are shown after the point."""
    return 1 if factor(metric) > 1 else metric.digits


def number(value: float, metric: Metric, sign: str = "") -> str:
    """A score, or a difference of scores (`sign="+"`)."""
    return f"{factor(metric) * value:{sign}.{digits(metric)}f}".replace("-", "−")


def spread(values: Sequence[float], metric: Metric) -> str:
    """The mean, with the standard deviation of several."""
    mean = number(statistics.mean(values), metric)
    return mean if len(values) == 1 else f"{mean} ± {number(statistics.stdev(values), metric)}"
