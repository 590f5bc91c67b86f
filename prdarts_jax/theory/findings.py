"""Tests of predictions: from the draws of one replicate to an interval and a verdict.

A test takes arrays of independent draws and the `level`, the probability of a false verdict that it may have. It
computes a confidence interval of 1 - level; the prediction holds if the whole interval is where the prediction says,
fails if the whole interval is elsewhere, and is inconclusive otherwise. Draws, pairs and p values that are NaN are left
out, unless a test says otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import scipy

LEVEL = 0.05  # the probability of a false verdict on a claim in one replicate

Verdict = Literal["holds", "fails", "inconclusive"]


class Result(NamedTuple):
    """What a test found: the statistic, its confidence interval, and the verdict."""

    measured: float
    low: float
    high: float
    verdict: Verdict


def _judge(interval: tuple[float, float, float], above: float, below: float = np.inf) -> Result:
    """The verdict on a statistic and the ends of its interval, which are predicted to be between two limits."""
    measured, low, high = interval
    if low > above and high < below:
        return Result(measured, low, high, "holds")
    elsewhere = high < above or low > below
    return Result(measured, low, high, "fails" if elsewhere else "inconclusive")


def _mean(draws, level):
    draws = draws[~np.isnan(draws)]
    mean = float(np.mean(draws)) if len(draws) else np.nan
    half = scipy.stats.t.ppf(1 - level / 2, len(draws) - 1) * scipy.stats.sem(draws) if len(draws) > 1 else np.nan
    return mean, mean - half, mean + half


def mean_above(draws: np.ndarray, *, level: float, threshold: float = 0.0) -> Result:
    """The mean is above a threshold, by Student's t interval.

    With a threshold below 0 this is a test of non-inferiority: the mean is not below 0 by more than that margin.
    """
    return _judge(_mean(draws, level), threshold)


def mean_within(draws: np.ndarray, *, level: float, above: float, below: float) -> Result:
    """The mean is between two limits, by Student's t interval: a test of equivalence."""
    return _judge(_mean(draws, level), above, below)


def share_above(draws: np.ndarray, *, level: float, share: float = 0.95) -> Result:
    """The probability that a draw is at least 0 is above `share`, by the exact binomial interval (Clopper, Pearson).

    It judges a bound of which draws are the margins. Here NaN is a draw that breaks the bound.
    """
    found = scipy.stats.binomtest(int(np.sum(draws >= 0)), len(draws))
    interval = found.proportion_ci(1 - level)
    return _judge((found.statistic, interval.low, interval.high), share)


def _pairs(x, y):
    there = ~(np.isnan(x) | np.isnan(y))
    return x[there], y[there]


def correlation_above(x: np.ndarray, y: np.ndarray, *, level: float, threshold: float = 0.0) -> Result:
    """Spearman's rank correlation of pairs is above a threshold, by Fisher's transformation with the variance of Bonett
    and Wright (2000)."""
    x, y = _pairs(x, y)
    value = float(scipy.stats.spearmanr(x, y).statistic) if len(x) > 1 else np.nan
    variance = (1 + value**2 / 2) / (len(x) - 3) if len(x) > 3 else np.inf
    half = scipy.stats.norm.ppf(1 - level / 2) * np.sqrt(variance)
    centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    return _judge((value, float(np.tanh(centre - half)), float(np.tanh(centre + half))), threshold)


def slope_within(x: np.ndarray, y: np.ndarray, *, level: float, above: float, below: float) -> Result:
    """The slope of the straight line y(x) is between two limits, by the interval of least squares."""
    x, y = _pairs(x, y)
    if len(x) < 3:
        return Result(np.nan, np.nan, np.nan, "inconclusive")
    fit = scipy.stats.linregress(x, y)
    half = scipy.stats.t.ppf(1 - level / 2, len(x) - 2) * fit.stderr
    return _judge((float(fit.slope), float(fit.slope - half), float(fit.slope + half)), above, below)


def fits(p_values: np.ndarray, *, level: float) -> Result:
    """No goodness-of-fit test rejects, at the level for all together (Bonferroni); the statistic is the smallest p
    times their number.

    It holds if none rejects, which is the most that such tests can say, and is inconclusive only without any p value.
    """
    p_values = p_values[~np.isnan(p_values)]
    if not p_values.size:
        return Result(np.nan, np.nan, np.nan, "inconclusive")
    smallest = min(1.0, float(np.min(p_values)) * np.size(p_values))
    return Result(smallest, smallest, smallest, "holds" if smallest >= level else "fails")


TESTS: Mapping[str, Callable[..., Result]] = {
    test.__name__: test for test in (mean_above, mean_within, share_above, correlation_above, slope_within, fits)
}
