"""The result of checking a claim: findings, each with a stated test and a verdict, and a figure."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
import scipy

if TYPE_CHECKING:  # imported only where figures are drawn, since importing matplotlib takes long
    from matplotlib.figure import Figure

Verdict = Literal["holds", "fails", "inconclusive"]


class Finding(NamedTuple):
    """One prediction beside its measurement.

    Attributes:
      predicted: a sentence that is either true or false.
      measured: the statistic.
      low: lower end of its confidence interval, 95 % for all means and correlations of a claim together
        (Bonferroni), 95 % by itself for a bound; equal to `measured` if nothing is estimated.
      high: upper end of the interval.
      test: the statistic, the test, and the number of tests, in words.
      verdict: of the test.
      margin: distance of the interval from the point at which the verdict would change: above 0 on the predicted side,
        below 0 on the other, 0 if inconclusive.
    """

    predicted: str
    measured: float
    low: float
    high: float
    test: str
    verdict: Verdict
    margin: float


class Series(NamedTuple):
    """One curve, or a cloud of points if `points`: x and y of the same length; `low` and `high` of a band, or empty."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray = ()
    high: Sequence[float] | np.ndarray = ()
    points: bool = False


class Panel(NamedTuple):
    """One plot: its series and labels; `log` names the logarithmic axes: '', 'x', 'y' or 'xy'."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: str = ""


class ClaimReport(NamedTuple):
    """A claim and the findings about it.

    Attributes:
      claim: its name in `claims.NAMED`.
      statement: of the paper, with its location in the paper.
      setting: the networks and the numbers of draws of the check, in words.
      findings: one for each prediction; those of the claim itself come first.
      panels: of the figure.
      details: further numbers by name.
    """

    claim: str
    statement: str
    setting: str
    findings: Sequence[Finding]
    panels: Sequence[Panel]
    details: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        """'fails' if a finding does, else 'inconclusive' if one is, else 'holds'."""
        verdicts = {finding.verdict for finding in self.findings}
        return "fails" if "fails" in verdicts else "inconclusive" if "inconclusive" in verdicts else "holds"


def _judge(low: float, high: float, threshold: float) -> tuple[Verdict, float]:
    """(verdict, margin) of an interval that is predicted to be above the threshold."""
    if low > threshold:
        return "holds", low - threshold
    return ("fails", high - threshold) if high < threshold else ("inconclusive", 0.0)


def _one_of(tests: int) -> str:
    return f", one of {tests} tests (Bonferroni)" if tests > 1 else ""


def mean_above(predicted: str, values: np.ndarray, threshold: float = 0.0, tests: int = 1) -> Finding:
    """Whether the mean of independent draws f[draws] is above a threshold, by Student's t interval.

    The prediction holds if the whole interval is above the threshold, and fails if the whole interval is below. If this
    is one of several tests the confidence is 1 - 0.05 / tests (Bonferroni).
    """
    values = np.asarray(values, np.float64)
    mean, error = values.mean(), scipy.stats.sem(values)
    half = scipy.stats.t.ppf(1 - 0.025 / tests, len(values) - 1) * error
    return Finding(
        predicted,
        mean,
        mean - half,
        mean + half,
        f"mean of {len(values)} draws, t interval{_one_of(tests)}",
        *_judge(mean - half, mean + half, threshold),
    )


def always_above(predicted: str, margins: np.ndarray, what: str) -> Finding:
    """Whether a bound was kept in every case; the interval is that of the share of cases that keep it (Clopper,
    Pearson).

    Args:
      predicted: see `Finding`.
      margins: f[cases], at least 0 in cases that keep the bound.
      what: what the cases are, a plural, for instance 'draws'.
    """
    margins = np.ravel(margins)
    kept = int((margins >= 0).sum())
    interval = scipy.stats.binomtest(kept, len(margins)).proportion_ci(0.95)
    return Finding(
        predicted,
        kept / len(margins),
        interval.low,
        interval.high,
        f"share of {len(margins)} {what} that keep the bound, exact binomial interval",
        "holds" if kept == len(margins) else "fails",
        float(margins.min()),
    )


def correlation_above(predicted: str, x: np.ndarray, y: np.ndarray, threshold: float = 0.0, tests: int = 1) -> Finding:
    """Whether Spearman's rank correlation of independent pairs is above a threshold, by a bootstrap of 2,000 samples.

    For `tests` see `mean_above`.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    low, high = np.quantile(bootstrap(lambda i: spearman(x[i], y[i]), len(x)), (0.025 / tests, 1 - 0.025 / tests))
    value = spearman(x, y)
    return Finding(
        predicted,
        value,
        low,
        high,
        f"Spearman's correlation of {len(x)} draws, bootstrap interval{_one_of(tests)}",
        *_judge(low, high, threshold),
    )


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(scipy.stats.spearmanr(x, y).statistic)


def bootstrap(statistic: Callable[[np.ndarray], float], size: int, times: int = 2000) -> np.ndarray:
    """The statistic of `times` samples of indices, drawn with replacement, always with the same random numbers."""
    generator = np.random.default_rng(0)
    return np.array([statistic(generator.integers(0, size, size)) for _ in range(times)])


def fits(predicted: str, p_values: np.ndarray, what: str, findings: int = 1) -> Finding:
    """Whether distributions fit: no goodness-of-fit test rejects them, at a level of 5 % for all together (Bonferroni).

    That a distribution is not rejected is the most that such a test can say.

    Args:
      predicted: see `Finding`.
      p_values: f[tests].
      what: what the tests are, a plural, for instance 'z tests against quadrature'.
      findings: number of such findings, each with this number of tests, to which this one belongs.
    """
    number = findings * np.size(p_values)
    smallest = min(1.0, float(np.min(p_values)) * number)
    return Finding(
        predicted,
        smallest,
        smallest,
        smallest,
        f"smallest p of {np.size(p_values)} {what}, times {number}; rejected below 0.05",
        "holds" if smallest >= 0.05 else "fails",
        smallest - 0.05,
    )


def over_draws(function: Callable, keys: jax.Array, floats: int) -> Any:
    """The arrays that a function returns for every key of key[draws], compiled. As many draws are computed at once as
    memory allows if one draw keeps about `floats` floats."""
    at_once = max(1, min(len(keys), 2_000_000 // floats))
    mapped = jax.jit(lambda keys: jax.lax.map(function, keys, batch_size=at_once))
    return jax.device_get(mapped(keys))


def claim_figure(report: ClaimReport) -> "Figure":
    """A figure of the panels, three per row."""
    from matplotlib.figure import Figure

    columns = min(3, len(report.panels))
    rows = -(-len(report.panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(report.panels) :]:
        unused.set_visible(False)
    for panel, ax in zip(report.panels, axes, strict=False):
        for number, series in enumerate(panel.series):
            x, colour = np.asarray(series.x), f"C{number}"
            line = {"linestyle": "none", "marker": "o", "markersize": 3.5, "alpha": 0.7} if series.points else {}
            ax.plot(x, np.asarray(series.y), label=series.label, color=colour, **line)
            if len(series.low) and series.points:
                ax.vlines(x, series.low, series.high, color=colour, alpha=0.5)
            elif len(series.low):
                ax.fill_between(x, series.low, series.high, color=colour, alpha=0.2)
        if "x" in panel.log:
            ax.set_xscale("log")
        if "y" in panel.log:
            ax.set_yscale("log")
        ax.set_title(panel.title, fontsize=10)
        ax.set_xlabel(panel.x_label, fontsize=9)
        ax.set_ylabel(panel.y_label, fontsize=9)
        ax.legend(fontsize=8)
    figure.suptitle(f"{report.claim}: {report.verdict}", fontsize=11)
    return figure
