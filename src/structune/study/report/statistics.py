"""How sure scores of few seeds on few tasks are, by SciPy."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95
"""Of every interval; a difference is shown where its p is below one minus this."""

FEW = 10
"""Of fewer values a bootstrap interval is much too narrow, and goes by percentiles, as no better one can be had."""

RESAMPLES = 9999


class Interval(NamedTuple):
    """Between which two values something lies."""

    low: float
    high: float


def t_interval(values: Sequence[float]) -> Interval | None:
    """Of the mean of normal values, by Student's t; None: there are fewer than two, or all are the same."""
    from scipy import stats

    if len(set(values)) < 2:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    return Interval(*map(float, stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)))


def bootstrap_interval(values: Sequence[float]) -> Interval | None:
    """Of the mean, by resampling (BCa, below `FEW` values percentiles); None as in `t_interval`.

    The draws are the same each time.
    """
    import numpy as np
    from scipy import stats

    if len(set(values)) < 2:
        return None
    found = stats.bootstrap(
        (np.asarray(values, dtype=np.float64),), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES,
        method="BCa" if len(values) >= FEW else "percentile", random_state=np.random.default_rng(0),
    )  # fmt: skip
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def bootstrap_holds_at_most(count: int) -> float:
    """How often a percentile bootstrap of so many values can hold the mean of a symmetric distribution: 1 − 2^(1 − n).

    It never leaves the range of the values, and all of them are on one side of the mean that often.
    """
    return 1 - 2.0 ** (1 - count)


class Difference(NamedTuple):
    """A mean difference between two methods whose scores come in pairs.

    Attributes:
        mean: over groups of the mean over each one's pairs; nan where there is no pair.
        interval: of it; None where it was not tested.
        p: two-sided, that there is none; None where it was not tested.
        pairs: how many there are.
        why_not: why it was not tested.
    """

    mean: float
    interval: Interval | None
    p: float | None
    pairs: int
    why_not: str = ""


def paired_difference(groups: Sequence[Sequence[float]]) -> Difference:
    """Test paired differences in groups, such as those of each seed on several tasks.

    d = (1/G) Σ d̄_g with the variance (1/G²) Σ s_g² / n_g, and t with Satterthwaite's degrees of freedom, rounded down:
    unrounded, groups of three of very unequal variance are told apart by chance more often than p says. Groups are
    fixed and may differ in variance and number: what is said holds for these tasks and other seeds. With one group it
    is the paired t-test.
    """
    from scipy import stats

    groups = [group for group in groups if group]
    pairs = sum(len(group) for group in groups)
    if not groups:
        return Difference(math.nan, None, None, 0, "nothing in common")
    mean = statistics.fmean(statistics.fmean(group) for group in groups)
    if any(len(group) < 2 for group in groups):
        return Difference(mean, None, None, pairs, "one seed in common")
    if pairs - len(groups) < 2:
        return Difference(mean, None, None, pairs, "two seeds in common")
    parts = [statistics.variance(group) / len(group) / len(groups) ** 2 for group in groups]
    variance = sum(parts)
    if variance <= 1e-24 * max(1.0, mean * mean):
        return Difference(mean, None, None, pairs, "the same in every seed")
    terms = (part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    freedom = math.floor(variance**2 / sum(terms) + 1e-9)
    error = math.sqrt(variance)
    low, high = stats.t.interval(CONFIDENCE, freedom, mean, error)
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Difference(mean, Interval(float(low), float(high)), p, pairs)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure, in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, so_far = [0.0] * len(values), 0.0
    for step, number in enumerate(order):
        so_far = max(so_far, min(1.0, (len(values) - step) * values[number]))
        corrected[number] = so_far
    return corrected


def mean_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """Of each column, over rows in which the greatest is first; ranks of equals are averaged."""
    from scipy import stats

    ranks = [stats.rankdata([-value for value in row]) for row in scores]
    return [float(statistics.fmean(column)) for column in zip(*ranks, strict=True)]


def friedman(scores: Sequence[Sequence[float]]) -> float:
    """p that all columns are alike, rows being blocks; nan where every row is all equal."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where all are equal
        return float(stats.friedmanchisquare(*zip(*scores, strict=True)).pvalue)


def critical_difference(methods: int, tasks: int) -> float:
    """How far mean ranks have to be apart, by Nemenyi: q √(k (k + 1) / 6N), q that of the studentized range over √2.

    Source: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), section 3.2.2.
    """
    from scipy import stats

    studentized = float(stats.studentized_range.ppf(CONFIDENCE, methods, math.inf))
    return studentized / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * tasks))


def alike(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Of ranks from the least on: first and last of each largest group that lies within the difference."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(number for number, other in enumerate(ranks) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
