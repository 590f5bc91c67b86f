"""What became of claims: as JSON, as a table, and as a figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prdarts_jax import markdown
from prdarts_jax.theory.verdicts import ClaimReport, Finding, overall, share

if TYPE_CHECKING:  # imported only where figures are drawn, since importing matplotlib takes long
    from matplotlib.figure import Figure


def _number(value: float) -> float | None:
    """None if it is not finite, for JSON."""
    return float(value) if math.isfinite(value) else None


def _of_finding(finding: Finding) -> dict[str, Any]:
    measured = [result.measured for result in finding.results if math.isfinite(result.measured)] or [math.nan]
    return {
        "role": finding.role,
        "test": finding.test,
        "verdict": overall(finding.verdicts),
        "share": share(finding.verdicts),
        "median": _number(np.median(measured)),
        "lowest": _number(min(measured)),
        "highest": _number(max(measured)),
        "replicates": [[*map(_number, result[:3]), result.verdict] for result in finding.results],
    }


def as_json(report: ClaimReport) -> dict[str, Any]:
    """A report as an object for JSON; `findings` has {prediction: {case: finding}}, in which 'median', 'lowest' and
    'highest' are those of the statistic over the replicates that have a finite one."""
    findings: dict[str, Any] = {}
    for finding in report.findings:
        of_prediction = findings.setdefault(finding.name, {"says": finding.says, "cases": {}})
        of_prediction["cases"][finding.case or "all"] = _of_finding(finding)
    return {
        "claim": report.claim,
        "statement": report.statement,
        "setting": report.setting,
        "verdict": overall(report.verdicts),
        "share": share(report.verdicts),
        "replicates": report.replicates,
        "findings": findings,
    }


def table(reports: Iterable[Mapping[str, Any]]) -> str:
    """The findings of reports in the form of `as_json`, one row for each prediction and case, in Markdown.

    What is measured is given as the median over the replicates, with their range.
    """
    rows = []
    for report in reports:
        rows.append([f"**{report['claim']}**", "", report["statement"], "", "", "", f"**{report['share']}**"])
        for name, prediction in report["findings"].items():
            for case, found in prediction["cases"].items():
                median, low, high = (_shown(found[key]) for key in ("median", "lowest", "highest"))
                what = [f"{report['claim']}.{name}", found["role"], prediction["says"], case]
                rows.append([*what, f"{median} ({low} to {high})", found["test"], found["share"]])
    return markdown.table(["claim", "role", "prediction", "case", "measured (range)", "test", "verdict"], rows)


def _shown(number):
    return "none" if number is None else f"{number:.3g}"


def figure(report: Mapping[str, Any]) -> "Figure":
    """A figure of a report in the form of `as_json`: a panel for each prediction, with the intervals of all replicates
    of each case."""
    from matplotlib.figure import Figure

    findings = report["findings"]
    columns = min(3, len(findings))
    rows = -(-len(findings) // columns)
    heights = 1.0 + 0.28 * max(len(prediction["cases"]) for prediction in findings.values())
    figure = Figure(figsize=(5.2 * columns, (heights + 0.6) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(findings) :]:
        unused.set_visible(False)
    for (name, prediction), ax in zip(findings.items(), axes, strict=False):
        for place, of_case in enumerate(prediction["cases"].values()):
            _draw_intervals(ax, place, of_case["replicates"])
        cases = list(prediction["cases"].items())
        ax.set_yticks(range(len(cases)), [f"{case}: {found['share']}" for case, found in cases], fontsize=8)
        ax.set_ylim(len(cases) - 0.4, -0.6)
        ax.set_title(f"{name} ({cases[0][1]['role']}; {cases[0][1]['test']})", fontsize=9)
        ax.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{report['claim']}: {report['share']}", fontsize=11)
    return figure


_COLOURS = {"holds": "C0", "fails": "C3", "inconclusive": "0.5"}


def _draw_intervals(ax: Any, place: float, replicates: Sequence[Sequence[Any]]) -> None:
    shifts = np.linspace(-0.3, 0.3, len(replicates)) if len(replicates) > 1 else [0.0]
    for shift, (measured, low, high, verdict) in zip(shifts, replicates, strict=True):
        if measured is not None:
            ax.plot(measured, place + shift, "o", color=_COLOURS[verdict], markersize=3)
        if low is not None and high is not None:
            ax.hlines(place + shift, low, high, color=_COLOURS[verdict], linewidth=1)
