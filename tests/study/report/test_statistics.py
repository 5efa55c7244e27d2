"""Statistics against tables, worked examples and SciPy called another way."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from structune.study.report.statistics import (
    alike,
    bootstrap_holds_at_most,
    bootstrap_interval,
    critical_difference,
    friedman,
    holm,
    mean_ranks,
    paired_difference,
    t_interval,
)


def test_t_interval_of_three_by_hand() -> None:
    """Of 1, 2, 3: 2 ± 4.3027 · 1 / √3, with the table's quantile of t at two degrees of freedom."""
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6)


def test_intervals_of_nothing_that_varies_are_none() -> None:
    for values in ([0.5], [0.69, 0.69, 0.69]):
        assert t_interval(values) is None
        assert bootstrap_interval(values) is None


def test_bootstrap_of_three_is_the_percentiles_of_all_resamples() -> None:
    values = [0.2, 0.5, 0.9]
    means = [np.mean(drawn) for drawn in product(values, repeat=3)]
    expected = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    assert bootstrap_interval(values) == pytest.approx(tuple(expected), abs=1e-9)


def test_bootstrap_of_many_is_near_the_t_interval() -> None:
    values = list(np.random.default_rng(0).normal(3.0, 1.0, 400))
    assert bootstrap_interval(values) == pytest.approx(t_interval(values), abs=0.01)


@pytest.mark.parametrize("count", [2, 3])
def test_a_bootstrap_of_few_holds_the_mean_too_rarely_and_t_does_not(count: int) -> None:
    """The percentile interval lies within the values, so this share bounds it; exact for normal values."""
    drawn = np.random.default_rng(1).normal(0.0, 1.0, (20_000, count))
    within = np.mean((drawn.min(axis=1) < 0) & (drawn.max(axis=1) > 0))
    assert within == pytest.approx(bootstrap_holds_at_most(count), abs=0.01)
    intervals = [t_interval(list(values)) for values in drawn[:1000]]
    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.02)
    low, high = bootstrap_interval(list(drawn[0]))
    assert drawn[0].min() <= low <= high <= drawn[0].max()


def test_one_group_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(0.7, 0.02, 5), rng.normal(0.68, 0.02, 5)
    found, expected = paired_difference([list(one - other)]), stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    assert found.pairs == 5


def test_two_groups_are_welch_s_test_of_one_against_the_other_negated() -> None:
    """The mean of two groups' means is half the difference between the one and minus the other.

    Degrees of freedom are Welch's, rounded down.
    """
    one, other = [0.04, 0.01, 0.03], [0.02, -0.05, 0.06, 0.01]
    welch = stats.ttest_ind(one, [-value for value in other], equal_var=False)
    found = paired_difference([one, other])
    assert found.p == pytest.approx(2 * stats.t.sf(abs(welch.statistic), math.floor(welch.df)), rel=1e-9)
    assert found.p > welch.pvalue
    assert found.mean == pytest.approx((np.mean(one) + np.mean(other)) / 2)


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ([], "nothing in common"),
        ([[], []], "nothing in common"),
        ([[0.1]], "one seed in common"),
        ([[0.1, 0.2, 0.3], [0.1]], "one seed in common"),
        ([[0.1, 0.2]], "two seeds in common"),
        ([[0.02, 0.02, 0.02]], "the same in every seed"),
        ([[0.0, 0.0, 0.0]], "the same in every seed"),
    ],
)
def test_too_little_is_not_tested(groups: list[list[float]], why: str) -> None:
    found = paired_difference(groups)
    assert (found.p, found.interval, found.why_not) == (None, None, why)


def test_false_positives_keep_their_share() -> None:
    """Three tasks of unequal noise, three seeds, no difference: at most one in twenty is called one."""
    rng = np.random.default_rng(3)
    drawn = rng.normal(0.0, 1.0, (2000, 3, 3)) * np.array([0.002, 0.01, 0.05])[:, None]
    share = np.mean([paired_difference(groups.tolist()).p < 0.05 for groups in drawn])
    assert 0.02 < share < 0.058
    assert np.mean([paired_difference((groups + 0.1).tolist()).p < 0.05 for groups in drawn[:200]]) > 0.5


def test_holm_by_hand() -> None:
    """0.01 · 4, 0.02 · 3, then 0.03 · 2 = 0.06 and 0.04 · 1, which may not fall below it."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_as_its_definition_says() -> None:
    """Step down: at level α the i-th smallest of m is rejected while p ≤ α / (m − i + 1)."""
    rng = np.random.default_rng(4)
    for values in rng.uniform(0, 0.1, (50, 6)):
        for level in (0.01, 0.05, 0.1):
            rejected = np.zeros(6, dtype=bool)
            for step, number in enumerate(np.argsort(values)):
                if values[number] > level / (6 - step):
                    break
                rejected[number] = True
            assert [p <= level for p in holm(values.tolist())] == rejected.tolist()


def test_holm_holds_the_share_of_studies_with_any_false_positive() -> None:
    rng = np.random.default_rng(5)
    any_found = [min(holm(values.tolist())) < 0.05 for values in rng.uniform(0, 1, (3000, 10))]
    assert np.mean(any_found) == pytest.approx(1 - (1 - 0.005) ** 10, abs=0.012)


DEMSAR = [  # Demšar 2006, table 6: accuracies of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on fourteen data sets
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
]  # fmt: skip


def test_ranks_and_their_critical_difference_are_those_of_demsar_s_example() -> None:
    assert mean_ranks(DEMSAR) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.001)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    statistic = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in mean_ranks(DEMSAR)) - 4 * 25 / 4)
    assert statistic == pytest.approx(9.28, abs=0.01)
    assert friedman(DEMSAR) <= stats.chi2.sf(statistic, 3)  # SciPy corrects for ties, the paper does not
    assert friedman(DEMSAR) == pytest.approx(stats.chi2.sf(statistic, 3), abs=0.01)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_nemenyi_s_quantiles_are_those_of_the_table(methods: int, q: float) -> None:
    assert critical_difference(methods, 6) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 36), rel=5e-4)


def test_friedman_of_equals_is_nan() -> None:
    assert math.isnan(friedman([[0.5, 0.5, 0.5]] * 3))


@pytest.mark.parametrize(
    ("ranks", "difference", "groups"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.5, [(0, 1), (1, 2), (2, 3)]),
        ([1.0, 1.2, 3.0, 3.1], 1.0, [(0, 1), (2, 3)]),
        ([1.0, 2.0, 3.0], 5.0, [(0, 2)]),
        ([1.0, 3.0, 5.0], 1.0, []),
    ],
)
def test_groups_are_the_largest_within_the_difference(
    ranks: list[float], difference: float, groups: list[tuple[int, int]]
) -> None:
    assert alike(ranks, difference) == groups
