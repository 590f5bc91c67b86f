"""The findings of the theory lab against SciPy and plain NumPy: statistics, intervals, verdicts, margins; figures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from matplotlib.collections import LineCollection, PolyCollection
from shared import LEVEL

from prdarts_jax.theory import report

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def normal(size, mean, seed=0):
    return np.random.default_rng(seed).normal(mean, 1.0, size)


# The mean ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tests", [1, 4])
@pytest.mark.parametrize(
    "mean, threshold, verdict", [(2.0, 0.0, "holds"), (-2.0, 0.0, "fails"), (2.0, 5.0, "fails"), (-2.0, -5.0, "holds")]
)
def test_the_mean_has_students_interval_and_the_verdict_of_its_sides(mean, threshold, verdict, tests):
    values = normal(10, mean)
    found = report.mean_above("p", values, threshold, tests)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / tests)
    np.testing.assert_allclose(found[1:4], (values.mean(), *interval), rtol=1e-12)
    assert (found.predicted, found.verdict) == ("p", verdict)
    # How far the nearer end is on the predicted side.
    assert found.margin == pytest.approx(interval[0] - threshold if verdict == "holds" else interval[1] - threshold)
    assert (found.margin > 0) == (verdict == "holds")
    assert "10 draws" in found.test and ("one of 4 tests" in found.test) == (tests == 4)


@pytest.mark.parametrize("threshold", [0.9, 1.1])
def test_a_mean_whose_interval_has_the_threshold_inside_is_inconclusive(threshold):
    values = normal(10, 0.0)
    values += 1 - values.mean()
    found = report.mean_above("p", values, threshold)
    assert found.low < threshold < found.high and found.verdict == "inconclusive"
    assert found.margin == 0


def test_more_tests_may_turn_a_verdict_into_none():
    values = normal(10, 0.0)
    values += scipy.stats.sem(values) * 2.8 - values.mean()  # 2.26 for one test, 3.11 for one of four
    assert [report.mean_above("p", values, tests=tests).verdict for tests in (1, 4)] == ["holds", "inconclusive"]
    assert [report.mean_above("p", -values, tests=tests).verdict for tests in (1, 4)] == ["fails", "inconclusive"]


def test_the_intervals_of_four_tests_miss_one_in_eighty_means_and_one_in_twenty_families():
    """Binomial tests of the intervals below and above the mean, and of the families of four in which one misses.

    Of three draws each, where a wrong number of degrees of freedom covers far less."""
    families, mean = 700, 1.5
    values = np.random.default_rng(1).normal(mean, 2.0, (families, 4, 3))
    found = [[report.mean_above("p", draws, mean, tests=4) for draws in family] for family in values]
    below = np.array([[finding.high < mean for finding in family] for family in found])
    above = np.array([[finding.low > mean for finding in family] for family in found])
    alpha = 0.05 / 4
    for misses, probability in (
        (below, alpha / 2),
        (above, alpha / 2),
        (below | above, alpha),
        ((below | above).any(axis=1), 1 - (1 - alpha) ** 4),
    ):
        assert scipy.stats.binomtest(int(misses.sum()), misses.size, probability).pvalue > LEVEL / 4
    verdicts = np.array([[finding.verdict for finding in family] for family in found])
    np.testing.assert_array_equal(verdicts == "fails", below)
    np.testing.assert_array_equal(verdicts == "holds", above)


# Bounds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margins", [[0.0, 2.0, 0.5], [-1e-9, 2.0, 0.5, 0.0], [-1.0, -2.0], [1.0]])
def test_a_bound_holds_only_if_every_case_keeps_it(margins):
    found = report.always_above("p", np.array(margins), "steps")
    kept, total = sum(margin >= 0 for margin in margins), len(margins)
    # Clopper and Pearson by the quantiles of the beta distribution.
    low = scipy.stats.beta.ppf(0.025, kept, total - kept + 1) if kept else 0.0
    high = scipy.stats.beta.ppf(0.975, kept + 1, total - kept) if kept < total else 1.0
    np.testing.assert_allclose(found[1:4], (kept / total, low, high), rtol=1e-9, atol=1e-12)
    assert found.verdict == ("holds" if kept == total else "fails")
    assert found.margin == min(margins)
    assert found.predicted == "p" and f"{total} steps" in found.test


def test_a_bound_is_counted_over_all_axes_and_not_kept_by_what_is_no_number():
    found = report.always_above("p", np.array([[1.0, math.nan, 3.0], [0.0, -1.0, 2.0]]), "draws")
    assert found.measured == 4 / 6 and found.verdict == "fails"
    assert report.always_above("p", np.array([1.0, math.nan]), "draws").verdict == "fails"


# Correlations --------------------------------------------------------------------------------------------------------


def rank_correlation(x, y):
    return np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]


def test_spearmans_correlation_is_that_of_the_ranks_ties_and_all():
    x, y = np.array([1.0, 2.0, 2.0, 5.0, 100.0, -3.0]), np.array([0.1, 0.3, 0.2, 0.2, 9.0, 4.0])
    assert report.spearman(x, y) == pytest.approx(rank_correlation(x, y), rel=1e-12)
    assert report.spearman(x, np.exp(x / 10)) == pytest.approx(1.0)


@pytest.mark.parametrize("sign, threshold, verdict", [(1, 0.0, "holds"), (-1, 0.0, "fails"), (1, 0.8, "inconclusive")])
def test_a_correlation_is_judged_by_its_bootstrap_interval(sign, threshold, verdict):
    """The interval within 0.03 of one of other resamples: 2,000 leave the ends a standard error of about 0.01."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=40)
    y = sign * x + rng.normal(size=40) * 0.8
    found = report.correlation_above("p", x, y, threshold)
    assert found.measured == pytest.approx(rank_correlation(x, y), rel=1e-12)
    others = rng.integers(0, 40, (2000, 40))
    rx, ry = (scipy.stats.rankdata(values[others], axis=1) - 20.5 for values in (x, y))
    resampled = (rx * ry).sum(1) / np.sqrt((rx**2).sum(1) * (ry**2).sum(1))
    np.testing.assert_allclose((found.low, found.high), np.quantile(resampled, (0.025, 0.975)), atol=0.03)
    assert found.verdict == verdict
    ends = found.low - threshold, found.high - threshold
    assert found.margin == {"holds": ends[0], "fails": ends[1], "inconclusive": 0.0}[verdict]
    if verdict != "inconclusive":
        assert (found.margin > 0) == (verdict == "holds")
    assert "40 draws" in found.test


def test_the_bootstrap_draws_with_replacement_and_always_the_same():
    """Counts of the drawn indices against the binomial distribution that drawing with replacement gives."""
    drawn = []
    values = report.bootstrap(lambda i: drawn.append(i) or float(i.sum()), 6, times=3000)
    drawn = np.array(drawn)
    assert drawn.shape == (3000, 6) and values.shape == (3000,)
    np.testing.assert_array_equal(values, drawn.sum(1))
    np.testing.assert_array_equal(report.bootstrap(lambda i: float(i.sum()), 6, times=3000), values)
    observed = np.bincount((drawn == 2).sum(1), minlength=7)
    expected = 3000 * scipy.stats.binom.pmf(np.arange(7), 6, 1 / 6)
    merged = [np.array([*counts[:4], counts[4:].sum()]) for counts in (observed, expected)]
    assert merged[1].min() > 5
    assert scipy.stats.chisquare(*merged).pvalue > LEVEL / 2
    assert scipy.stats.chisquare(np.bincount(drawn.ravel(), minlength=6)).pvalue > LEVEL / 2
    assert len(report.bootstrap(lambda i: 0.0, 3)) == 2000


# Fits ----------------------------------------------------------------------------------------------------------------


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
    found = report.fits("p", np.array(p_values), "tests of a kind")
    assert found.measured == found.low == found.high == pytest.approx(smallest)
    assert found.verdict == verdict and found.margin == pytest.approx(smallest - 0.05)
    assert f"{len(p_values)} tests of a kind" in found.test


def test_more_tests_widen_the_interval_of_a_correlation_and_the_level_of_a_fit():
    x = np.random.default_rng(4).normal(size=30)
    y = x + np.random.default_rng(5).normal(size=30)
    one, four = (report.correlation_above("p", x, y, tests=tests) for tests in (1, 4))
    assert four.low < one.low < one.measured == four.measured < one.high < four.high
    assert [report.fits("p", np.array([0.02, 0.5]), "", n).measured for n in (1, 3)] == pytest.approx([0.04, 0.12])


def test_right_laws_are_rejected_in_one_of_twenty_families():
    p_values = np.random.default_rng(3).uniform(size=(3000, 10))
    rejected = sum(report.fits("p", family, "").verdict == "fails" for family in p_values)
    assert scipy.stats.binomtest(rejected, 3000, 1 - (1 - 0.05 / 10) ** 10).pvalue > LEVEL


# The verdict on a claim ----------------------------------------------------------------------------------------------


def claim(verdicts, panels=()):
    findings = [report.Finding("p", 0.0, 0.0, 0.0, "t", verdict, 0.0) for verdict in verdicts]
    return report.ClaimReport("name", "s", "on", findings, panels, {})


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        (("holds", "holds"), "holds"),
        (("holds", "inconclusive"), "inconclusive"),
        (("inconclusive", "holds", "fails"), "fails"),
        (("fails", "holds"), "fails"),
        (("inconclusive",), "inconclusive"),
    ],
)
def test_a_claim_fails_with_one_finding_and_holds_with_all(verdicts, expected):
    assert claim(verdicts).verdict == expected


# Draws ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "floats, at_once", [(1, 7), (600_000, 3), (2_000_000, 1), (10**9, 1)], ids=["all", "three", "one", "too large"]
)
def test_draws_are_those_of_a_loop_in_chunks_that_memory_allows(floats, at_once, monkeypatch):
    """Seven of them, which three do not divide."""
    sizes, original = [], jax.lax.map

    def spy(function, keys, *, batch_size):
        sizes.append(batch_size)
        return original(function, keys, batch_size=batch_size)

    def function(pair):
        values = jax.random.bits(pair[0], (2,)) / 2.0**32
        return {"values": values, "rest": (jnp.sum(values) > 1, jax.random.bits(pair[1]))}

    monkeypatch.setattr(jax.lax, "map", spy)
    keys = jax.random.split(jax.random.key(0), (7, 2))
    found = report.over_draws(function, keys, floats)
    assert sizes == [at_once]
    looped = [function(pair) for pair in keys]
    assert jax.tree.structure(found) == jax.tree.structure(looped[0])
    for actual, *expected in zip(*map(jax.tree.leaves, (found, *looped)), strict=True):
        assert isinstance(actual, np.ndarray) and actual.shape[0] == 7
        np.testing.assert_allclose(actual, np.stack(expected), rtol=1e-6)


# The figure ----------------------------------------------------------------------------------------------------------


def test_the_figure_has_a_plot_a_panel_with_its_curves_bands_and_axes():
    series = (
        report.Series("line", (1, 10), (2.0, 3.0), (1.0, 2.0), (4.0, 5.0)),
        report.Series("cloud", np.array([1, 2, 3]), np.array([4.0, 5.0, 6.0]), points=True),
        report.Series("whiskers", range(1, 3), [1.0, 2.0], [0.5, 1.5], [1.5, 2.5], points=True),
    )
    panels = [report.Panel(f"title {log}", "across", "up", series, log) for log in ("", "x", "y", "xy")]
    figure = report.claim_figure(claim(["holds", "inconclusive"], panels))
    assert figure.get_suptitle() == "name: inconclusive"
    assert [ax.get_visible() for ax in figure.axes] == [True] * 4 + [False] * 2
    for panel, ax in zip(panels, figure.axes, strict=False):
        assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (panel.title, "across", "up")
        scales = ["log" if axis in panel.log else "linear" for axis in "xy"]
        assert [ax.get_xscale(), ax.get_yscale()] == scales
        lines = [line for line in ax.lines if not line.get_label().startswith("_")]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["line", "cloud", "whiskers"]
        for line, one in zip(lines, series, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), np.stack([list(one.x), list(one.y)], axis=1))
            assert (line.get_linestyle() == "None") == one.points
        for kind, bounds in ((PolyCollection, [1, 5]), (LineCollection, [0.5, 2.5])):  # a band, and whiskers
            (drawn,) = (collection for collection in ax.collections if isinstance(collection, kind))
            heights = np.concatenate([path.vertices[:, 1] for path in drawn.get_paths()])
            assert [heights.min(), heights.max()] == bounds


def test_the_figure_of_one_panel_has_one_plot():
    panel = report.Panel("t", "x", "y", [report.Series("a", (0, 1), (0, 1))])
    assert len(report.claim_figure(claim(["fails"], [panel])).axes) == 1
