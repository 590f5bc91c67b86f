"""Curves and comparisons of a run, as matplotlib figures; nothing here touches files."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prdarts_jax.run.run_log import Record
from prdarts_jax.search.diagnostics import DIAGNOSTICS, Diagnostic

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = MappingProxyType(
    {
        "skip": "#D55E00",
        "pool": "#009E73",
        "conv": "#0072B2",
        "noise": "#E69F00",
        "none": "#CC79A7",
        "all": "black",
    }
)
TITLES = MappingProxyType({"normal": "normal cell", "reduce": "reduction cell"})
_CELL_STYLES: Mapping[str, dict[str, str]] = MappingProxyType(
    {
        "normal": {"color": COLOURS["conv"], "marker": "o", "label": TITLES["normal"]},
        "reduce": {"color": COLOURS["skip"], "marker": "s", "linestyle": "--", "label": TITLES["reduce"]},
    }
)
_LINE_STYLES: tuple[dict[str, str], ...] = (
    {"color": "black", "marker": "o"},
    {"color": COLOURS["pool"], "marker": "s", "linestyle": "--"},
    {"color": COLOURS["noise"], "marker": "^", "linestyle": ":"},
)


def activation_figure(records: Sequence[Record]) -> Figure:
    """Mean activation probability of each op group over epochs, with a panel per cell type: figure 4b of the supplement
    of Zhou et al., NeurIPS 2020, split by group. There must be at least one record."""
    cell_types = list(records[-1]["activation"])
    figure = _figure(max(7, 5 * len(cell_types)), 4.8)
    panels = figure.subplots(1, len(cell_types), sharey=True, squeeze=False)[0]
    for axes, cell_type in zip(panels, cell_types, strict=True):
        for kind in records[-1]["activation"][cell_type]:
            _line(
                axes,
                records,
                [record["activation"][cell_type][kind] for record in records],
                color=COLOURS[kind],
                linewidth=3.5 if kind == "all" else 1.6,
                label="all ops" if kind == "all" else kind,
            )
        axes.set(title=TITLES[cell_type])
    highest = max(axes.dataLim.ymax for axes in panels) or 1
    panels[0].set(ylabel="mean activation probability", ylim=(-0.02 * highest, 1.02 * highest))
    _legend(figure)
    return figure


def skip_share_figure(records: Sequence[Record]) -> Figure:
    """Share of skip connections in the derived cells over epochs. There must be at least one record."""
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for cell_type in records[-1]["skip_share"]:
        shares = [100 * record["skip_share"][cell_type] for record in records]
        _line(axes, records, shares, **_CELL_STYLES[cell_type])
    axes.set(title="derived cells", ylabel="share of skip connections (%)", ylim=(-2, 102))
    _legend(figure)
    return figure


def diagnostics_figure(*runs: Sequence[Record]) -> Figure:
    """The diagnostics of a search over epochs, with a panel for each title of `DIAGNOSTICS` that the records have.

    For several runs each panel has a line of their mean, over the epochs that all have, and a faint line for each run.

    Args:
      *runs: the records of each run, at least one, with "epoch". All or some of them have one or more of the fields of
        `DIAGNOSTICS`, each a number or a number per cell type.

    Raises:
      ValueError: the records have none of these fields.
    """
    records = runs[0] if len(runs) == 1 else mean(runs, [diagnostic.field for diagnostic in DIAGNOSTICS])
    panels: dict[str, list[Diagnostic]] = {}
    for diagnostic in DIAGNOSTICS:
        if any(diagnostic.field in record for record in records):
            panels.setdefault(diagnostic.title, []).append(diagnostic)
    if not panels:
        raise ValueError(f"records have none of the fields {', '.join(d.field for d in DIAGNOSTICS)}")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = _figure(max(7, 4 * columns), 3.2 * rows + 0.8)
    for place, (title, shown) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for diagnostic, style in zip(shown, itertools.cycle(_LINE_STYLES), strict=False):
            style = style | {"label": diagnostic.legend}
            _diagnostic(axes, diagnostic.field, records, style)
            for run in runs if len(runs) > 1 else ():
                _diagnostic(axes, diagnostic.field, run, style, marker="", linewidth=0.8, alpha=0.35, label="")
        axes.set(title=title, ylabel=shown[0].label, xlim=(records[0]["epoch"] - 0.5, records[-1]["epoch"] + 0.5))
        low, high = shown[0].limits or axes.dataLim.intervaly
        # The margin makes rounding errors look like a constant.
        margin = max(0.05 * (high - low), 1e-3 * max(abs(low), abs(high))) or 1
        axes.set_ylim(low - margin, high + margin)
        if any(diagnostic.legend for diagnostic in shown):
            axes.legend(frameon=False)
        if shown[0].whole:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def _diagnostic(axes, field, records, style, **changes):
    """Draws the line of one field, or a line for each cell type."""
    having = [record for record in records if field in record]
    if having and isinstance(having[-1][field], Mapping):
        for cell_type in having[-1][field]:
            _line(axes, having, [record[field][cell_type] for record in having], **_CELL_STYLES[cell_type] | changes)
    elif having:
        _line(axes, having, [record[field] for record in having], **style | changes)


def mean(runs: Sequence[Sequence[Record]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Records of means over the runs, of the epochs that all runs have and of those fields that all runs have."""
    means = []
    for records in zip(*runs, strict=False):
        there = [field for field in fields if all(field in record for record in records)]
        shared = [{field: record[field] for field in there} for record in records]
        averaged = jax.tree.map(lambda *values: sum(values) / len(values), *shared)
        means.append({"epoch": records[0]["epoch"], **averaged})
    return means


def curves_figure(
    records: Sequence[Record], held_out: str = "validation", quantities: Sequence[str] = ("loss", "accuracy")
) -> Figure:
    """Losses and accuracies over epochs, in training and on held-out images, with a panel for each quantity.

    Args:
      records: at least one, each with "epoch" and train_loss (nats), train_accuracy (a fraction), and val_loss and
        val_accuracy, or test_loss and test_accuracy.
      held_out: 'validation' or 'test'.
      quantities: 'loss', 'accuracy' or both.
    """
    other = {"validation": "val", "test": "test"}[held_out]
    figure = _figure(10, 4.8)
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    looks = {"loss": (1, "cross-entropy (nats)"), "accuracy": (100, "accuracy (%)")}
    styles = {
        "train": {"color": COLOURS["conv"], "label": "training"},
        other: {"color": COLOURS["skip"], "label": held_out, "linestyle": "--"},
    }
    for axes, quantity in zip(panels, quantities, strict=True):
        scale, label = looks[quantity]
        for part, style in styles.items():
            _line(axes, records, [scale * record[f"{part}_{quantity}"] for record in records], **style)
        axes.set(title=quantity, ylabel=label)
    _legend(figure)
    return figure


def confusion_figure(confusion: Sequence[Sequence[int]]) -> Figure:
    """The percentage of the images of each label (row) that were classified as each class (column).

    Args:
      confusion: [classes, classes], numbers of images.
    """
    counts = np.asarray(confusion, float)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(7, 6)
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(title="test", xlabel="classified as", ylabel="label")
    figure.colorbar(image, label="images of the label (%)")
    if len(percent) <= 20:
        axes.set(xticks=range(len(percent)), yticks=range(len(percent)))
        for (row, column), value in np.ndenumerate(percent):
            if value:
                text, colour = f"{value:.0f}" if value >= 0.5 else "<1", "white" if value > 50 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    return figure


def comparison_figure(rows: Mapping[str, Mapping[str, float]], cost: tuple[str, float] | None = None) -> Figure:
    """Test accuracies of cells, ranked and against the size of their networks.

    Args:
      rows: name -> accuracy and standard_error (fractions) and params. Cells whose names begin with 'found' have the
        same colour, and so have those whose names begin with 'random'.
      cost: (unit of the rows' field `cost`, target of the search); if given, costs are shown in place of params.
    """
    size, label = ("cost", cost[0]) if cost else ("params", "weights")
    ranked = sorted(rows, key=lambda name: rows[name]["accuracy"])
    colours = {"found": COLOURS["conv"], "all": COLOURS["skip"], "random": "0.6"}
    figure = _figure(10, max(4.8, 1.3 + 0.2 * len(ranked)))  # room for the name of each
    left, right = figure.subplots(1, 2)
    for place, name in enumerate(ranked):
        accuracy, error = 100 * rows[name]["accuracy"], 100 * rows[name]["standard_error"]
        style = {"color": colours.get(name.partition("_")[0], COLOURS["pool"]), "fmt": "o", "markersize": 8}
        left.errorbar(accuracy, place, xerr=error, **style)
        right.errorbar(rows[name][size], accuracy, yerr=error, **style)
    left.set_yticks(range(len(ranked)), [name.replace("_", " ") for name in ranked])
    left.set(xlabel="test accuracy (%), with its standard error")
    right.set(xlabel=label, ylabel="test accuracy (%)")
    if cost:
        right.axvline(cost[1], color="0.4", linestyle="--", label="target")
        right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=label)
        for colour, label in zip(colours.values(), ("found", "all skip connections", "random"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _legend(figure: Figure) -> None:
    """One legend below all panels that have none of their own, each label once."""
    handles: dict[str, Artist] = {}
    for axes in (axes for axes in figure.axes if axes.get_legend() is None):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False
        )


def _line(axes: Axes, records: Sequence[Record], values: Sequence[float], marker: str = "o", **style: Any) -> None:
    """One curve over epochs, with markers on up to 20 of them, so that a run of a single epoch is visible."""
    epochs = [record["epoch"] for record in records]
    axes.plot(epochs, values, marker=marker, markersize=3.5, markevery=-(-len(epochs) // 20), **style)
    axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
