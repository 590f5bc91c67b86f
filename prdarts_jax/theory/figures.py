"""The figure of a claim."""

import numpy as np
from matplotlib.figure import Figure

from prdarts_jax.theory.report import ClaimReport


def claim_figure(report: ClaimReport) -> Figure:
    """Its panels side by side, three a row."""
    columns = min(3, len(report.panels))
    rows = -(-len(report.panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(report.panels) :]:
        unused.set_visible(False)
    for panel, ax in zip(report.panels, axes, strict=False):
        for number, series in enumerate(panel.series):
            x, y = np.asarray(series.x), np.asarray(series.y)
            line = {"linestyle": "none", "marker": "o", "markersize": 3.5, "alpha": 0.7} if series.points else {}
            ax.plot(x, y, label=series.label, color=f"C{number}", **line)
            if len(series.low) and series.points:
                ax.vlines(x, series.low, series.high, color=f"C{number}", alpha=0.5)
            elif len(series.low):
                ax.fill_between(x, series.low, series.high, color=f"C{number}", alpha=0.2)
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
