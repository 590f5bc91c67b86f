"""What the check of a claim leaves: findings, each with a stated test and a verdict, and a figure."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
import scipy

if TYPE_CHECKING:  # imported only where it is drawn, since matplotlib takes long
    from matplotlib.figure import Figure

Verdict = Literal["holds", "fails", "inconclusive"]


class Finding(NamedTuple):
    """One prediction beside its measurement.

    Attributes:
      predicted: a sentence that is either true or false.
      measured: the statistic.
      low: lower end of its confidence interval, 95 % for all means and correlations of a claim together
        (Bonferroni), 95 % by itself for a bound; equal to `measured` where nothing is estimated.
      high: upper end.
      test: which statistic, by what test, of how many.
      verdict: by that test.
      margin: how far the interval is from where the verdict would change: above 0 on the predicted side, below 0 on
        the other, 0 if inconclusive.
    """

    predicted: str
    measured: float
    low: float
    high: float
    test: str
    verdict: Verdict
    margin: float


class Series(NamedTuple):
    """One curve or cloud: x and y of one length, `low` and `high` of a band or empty."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray = ()
    high: Sequence[float] | np.ndarray = ()
    points: bool = False


class Panel(NamedTuple):
    """One plot: its series and labels; `log` has the axes that are logarithmic, '', 'x', 'y' or 'xy'."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: str = ""


class ClaimReport(NamedTuple):
    """What a claim says and what was found.

    Attributes:
      claim: its name in `claims.NAMED`.
      statement: of the paper, with the place.
      setting: what it was checked on, how many draws.
      findings: one a prediction; the claim's own come first.
      panels: of its figure.
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
    """(verdict, margin) of an interval."""
    if low > threshold:
        return "holds", low - threshold
    return ("fails", high - threshold) if high < threshold else ("inconclusive", 0.0)


def _one_of(tests: int) -> str:
    return f", one of {tests} tests (Bonferroni)" if tests > 1 else ""


def mean_above(predicted: str, values: np.ndarray, threshold: float = 0.0, tests: int = 1) -> Finding:
    """Whether the mean of independent draws f[draws] is above a threshold, by Student's t interval.

    It holds if the whole interval is above, fails if it is below. Of one of several tests the confidence is
    1 - 0.05 / tests (Bonferroni).
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
      margins: f[cases], at least 0 where the bound is kept.
      what: the cases are.
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
    """Whether Spearman's rank correlation of independent pairs is above a threshold, by a bootstrap of 2,000.

    `tests` as in `mean_above`.
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
    """The rank correlation."""
    return float(scipy.stats.spearmanr(x, y).statistic)


def bootstrap(statistic: Callable[[np.ndarray], float], size: int, times: int = 2000) -> np.ndarray:
    """The statistic of `times` samples of indices drawn with replacement (always the same ones)."""
    generator = np.random.default_rng(0)
    return np.array([statistic(generator.integers(0, size, size)) for _ in range(times)])


def fits(predicted: str, p_values: np.ndarray, what: str, findings: int = 1) -> Finding:
    """Whether distributions fit: that no goodness-of-fit test rejects at 5 % in all (Bonferroni).

    Not to be rejected is the most that such a test can say.

    Args:
      predicted: see `Finding`.
      p_values: f[tests].
      what: the tests are.
      findings: of how many such findings, each of as many tests, this is one.
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
    """The arrays that a function gives for every key of key[draws], compiled, as many at once as memory allows where
    one draw keeps about so many floats."""
    at_once = max(1, min(len(keys), 2_000_000 // floats))
    mapped = jax.jit(lambda keys: jax.lax.map(function, keys, batch_size=at_once))
    return jax.device_get(mapped(keys))


def claim_figure(report: ClaimReport) -> "Figure":
    """The panels side by side, three a row."""
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
