"""The tests of predictions against SciPy and plain NumPy: statistics, intervals, verdicts."""

import math

import numpy as np
import pytest
import scipy.stats
from shared import LEVEL

from prdarts_jax.theory import findings


def normal(size, mean, seed=0):
    return np.random.default_rng(seed).normal(mean, 1.0, size)


# The mean ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.0125])
@pytest.mark.parametrize(
    "mean, threshold, verdict", [(2.0, 0.0, "holds"), (-2.0, 0.0, "fails"), (2.0, 5.0, "fails"), (-2.0, -5.0, "holds")]
)
def test_the_mean_has_students_interval_and_the_verdict_of_its_side(mean, threshold, verdict, level):
    values = normal(10, mean)
    found = findings.mean_above(values, level=level, threshold=threshold)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - level)
    np.testing.assert_allclose(found[:3], (values.mean(), *interval), rtol=1e-12)
    assert found.verdict == verdict


@pytest.mark.parametrize("threshold", [0.9, 1.1])
def test_a_mean_whose_interval_has_the_threshold_inside_is_inconclusive(threshold):
    values = normal(10, 0.0)
    values += 1 - values.mean()
    found = findings.mean_above(values, level=0.05, threshold=threshold)
    assert found.low < threshold < found.high and found.verdict == "inconclusive"


@pytest.mark.parametrize(
    "mean, verdict", [(0.0, "holds"), (0.99, "inconclusive"), (-0.99, "inconclusive"), (1.5, "fails"), (-1.5, "fails")]
)
def test_a_mean_is_equivalent_if_its_interval_is_between_the_limits(mean, verdict):
    values = normal(100, 0.0) * 0.1
    found = findings.mean_within(values + mean - values.mean(), level=0.05, above=-1.0, below=1.0)
    assert found.measured == pytest.approx(mean) and found.verdict == verdict


def test_draws_without_a_value_are_left_out_of_a_mean():
    values = np.array([1.0, math.nan, 2.0, 3.0])
    assert findings.mean_above(values, level=0.05) == findings.mean_above(values[[0, 2, 3]], level=0.05)
    for few in ([], [1.0], [math.nan] * 3):
        assert findings.mean_above(np.array(few), level=0.05).verdict == "inconclusive"


def test_pairs_and_p_values_without_a_value_are_left_out():
    x = np.append(np.arange(20.0), [math.nan, 3.0])
    y = np.append(2 * np.arange(20.0) + normal(20, 0.0), [0.0, math.nan])
    tests = {findings.correlation_above: {}, findings.slope_within: {"above": 1.0, "below": 3.0}}
    for test, limits in tests.items():
        found = test(x, y, level=0.05, **limits)
        assert found == test(x[:20], y[:20], level=0.05, **limits) and found.verdict == "holds"
        for few in ([], [0, 1], [20, 21]):
            assert test(x[few], y[few], level=0.05, **limits).verdict == "inconclusive"
    assert findings.fits(np.array([math.nan, 1e-9]), level=0.05).verdict == "fails"
    assert findings.fits(np.array([math.nan, 0.3]), level=0.05).verdict == "holds"
    assert findings.fits(np.array([math.nan]), level=0.05).verdict == "inconclusive"


def test_intervals_of_a_mean_miss_it_as_often_as_the_level_says():
    """Binomial tests. Of three draws each, where a wrong number of degrees of freedom covers far less."""
    mean, level = 1.5, 0.1
    draws = np.random.default_rng(1).normal(mean, 2.0, (2000, 3))
    found = [findings.mean_above(values, level=level, threshold=mean).verdict for values in draws]
    for verdict in ("holds", "fails"):
        assert scipy.stats.binomtest(found.count(verdict), len(found), level / 2).pvalue > LEVEL / 2


# Bounds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "margins, share, verdict",
    [
        ([0.0] * 10, 0.6, "holds"),
        ([0.0] * 10, 0.7, "inconclusive"),
        ([-1e-9] * 10, 0.5, "fails"),
        ([1.0] * 5 + [-1.0] * 5, 0.5, "inconclusive"),
    ],
)
def test_a_bound_is_judged_by_the_exact_interval_of_the_share_that_keeps_it(margins, share, verdict):
    found = findings.share_above(np.array(margins), level=0.05, share=share)
    kept, total = sum(margin >= 0 for margin in margins), len(margins)
    # Clopper and Pearson by the quantiles of the beta distribution.
    low = scipy.stats.beta.ppf(0.025, kept, total - kept + 1) if kept else 0.0
    high = scipy.stats.beta.ppf(0.975, kept + 1, total - kept) if kept < total else 1.0
    np.testing.assert_allclose(found[:3], (kept / total, low, high), rtol=1e-9, atol=1e-12)
    assert found.verdict == verdict


def test_what_is_no_number_breaks_a_bound():
    assert findings.share_above(np.array([1.0, math.nan, 0.0, -1.0]), level=0.05).measured == 0.5


# Relations -----------------------------------------------------------------------------------------------------------


def test_spearmans_correlation_is_that_of_the_ranks_ties_and_all():
    x, y = np.array([1.0, 2.0, 2.0, 5.0, 100.0, -3.0]), np.array([0.1, 0.3, 0.2, 0.2, 9.0, 4.0])
    found = findings.correlation_above(x, y, level=0.05)
    expected = np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]
    assert found.measured == pytest.approx(expected, rel=1e-12)
    half = 1.959964 * math.sqrt((1 + expected**2 / 2) / 3)
    np.testing.assert_allclose(np.arctanh(found[1:3]), np.arctanh(expected) + np.array([-half, half]), rtol=1e-5)


@pytest.mark.parametrize("sign, threshold, verdict", [(1, 0.0, "holds"), (-1, 0.0, "fails"), (1, 0.8, "inconclusive")])
def test_the_interval_of_a_correlation_is_near_that_of_a_bootstrap(sign, threshold, verdict):
    rng = np.random.default_rng(2)
    x = rng.normal(size=80)
    y = sign * x + rng.normal(size=80) * 0.8
    found = findings.correlation_above(x, y, level=0.05, threshold=threshold)
    others = rng.integers(0, 80, (2000, 80))
    rx, ry = (scipy.stats.rankdata(values[others], axis=1) - 40.5 for values in (x, y))
    resampled = (rx * ry).sum(1) / np.sqrt((rx**2).sum(1) * (ry**2).sum(1))
    np.testing.assert_allclose((found.low, found.high), np.quantile(resampled, (0.025, 0.975)), atol=0.05)
    assert found.verdict == verdict


def test_a_slope_has_the_interval_of_least_squares():
    rng = np.random.default_rng(5)
    x = rng.normal(size=30)
    y = 1.2 * x + 0.3 + 0.2 * rng.normal(size=30)
    found = findings.slope_within(x, y, level=0.05, above=0.5, below=1.5)
    design = np.stack([x, np.ones(30)], axis=1)
    solution, (rest,), *_ = np.linalg.lstsq(design, y)
    error = math.sqrt(rest / 28 * np.linalg.inv(design.T @ design)[0, 0])
    half = scipy.stats.t.ppf(0.975, 28) * error
    np.testing.assert_allclose(found[:3], solution[0] + np.array([0, -half, half]), rtol=1e-9)
    assert found.verdict == "holds"
    assert findings.slope_within(x, y, level=0.05, above=1.5, below=2.0).verdict == "fails"
    assert findings.slope_within(x, y, level=0.05, above=1.2, below=2.0).verdict == "inconclusive"


@pytest.mark.parametrize(
    "p_values, smallest, verdict",
    [
        ([0.3, 0.02, 0.9], 0.06, "holds"),
        ([0.3, 0.01, 0.9], 0.03, "fails"),
        ([0.01] * 6, 0.06, "holds"),
        ([0.8, 0.9], 1.0, "holds"),
        ([0.05], 0.05, "holds"),
        ([0.0499], 0.0499, "fails"),
    ],
)
def test_distributions_fit_unless_the_smallest_p_times_their_number_rejects(p_values, smallest, verdict):
    found = findings.fits(np.array(p_values), level=0.05)
    assert found.measured == found.low == found.high == pytest.approx(smallest)
    assert found.verdict == verdict
