"""The pictures of a run, as matplotlib figures; nothing here touches files."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from prdarts_jax import ops
from prdarts_jax.run.cell_layout import HEIGHT, LABEL_MARGIN, NODE_HALF, WIDTH, place_nodes, route
from prdarts_jax.spaces import genotypes

Record = Mapping[str, Any]

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
STYLES: Mapping[str, dict[str, str]] = MappingProxyType(
    {
        "normal": {"color": COLOURS["conv"], "marker": "o"},
        "reduce": {"color": COLOURS["skip"], "marker": "s", "linestyle": "--"},
        "alignment_val": {"color": "black", "marker": "o", "label": "validation"},
        "alignment_train": {"color": COLOURS["pool"], "marker": "s", "linestyle": "--", "label": "training"},
    }
)
# Fields of a record and how a panel shows them: (fields, title, label of the axis).
DIAGNOSTICS = (
    (("skip_share",), "skip connections", "share in the derived cells"),
    (("depth",), "depth", "connections in the derived cells"),
    (("entropy",), "entropy", "mean of the edges (nats)"),
    (("alignment_val", "alignment_train"), "alignment of the layers", "agreement of gradients"),
    (("eigenvalue",), "dominant eigenvalue", "Hessian of the validation loss"),
)


def cell_figure(genotype: genotypes.AnyGenotype, cell_type: str) -> Figure:
    """The cell as a directed graph from left to right, 1800 x 900 pixels, like the DARTS figures.

    A node's column is its depth, the longest path from an input. Rows, bends of the edges and
    places of the labels are those of least overlap found by a search without randomness. Entries of
    the group 'none' are not drawn; nodes have the numbers that the papers give them.

    Artists carry a gid for whoever wants to restyle them: "node", "edge" and "op".

    Args:
      genotype: the cells; only the one drawn is read.
      cell_type: one of `genotypes.cells(genotype)`.
    """
    entries = genotypes.cells(genotype)[cell_type]
    inputs, outputs = genotypes.ends(genotype, cell_type)
    concat = () if isinstance(genotype, genotypes.EdgeGenotype) else outputs
    output = max(target for _, _, target in entries) + bool(concat)
    entries = tuple(entry for entry in entries if ops.group(entry[0]) != "none")
    drawn = [op for op, _, _ in entries] + [""] * len(concat)
    edges = [(source, target) for _, source, target in entries]
    edges += [(node, output) for node in concat]
    names = ["$c_{k-2}$", "$c_{k-1}$"][-len(inputs) :]
    names += [str(node - 2 if concat else node) for node in range(len(inputs), output)] + ["$c_k$"]
    fills = ["#D5E8D4" if node in inputs else "#9CCBEE" for node in range(output)] + ["#F5DE8A"]

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    axes.text(WIDTH / 2, HEIGHT - 0.4, TITLES[cell_type], fontsize=16, ha="center", va="center")

    colours = [COLOURS[ops.group(op)] if op else "0.6" for op in drawn]
    labels = [
        axes.text(0, 0, op, fontsize=11, color=colour, ha="center", va="center", gid="op", zorder=4)
        for op, colour in zip(drawn, colours, strict=True)
        if op
    ]
    halves = np.full((len(edges), 2), -np.inf)  # an edge to the output has no label to overlap
    for i, label in enumerate(labels):
        extent = label.get_window_extent(renderer)
        halves[i] = np.array([extent.width, extent.height]) / figure.dpi / 2 + LABEL_MARGIN
        label.set_bbox({"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"})

    positions = place_nodes(edges, len(inputs), output + 1, narrow=bool(concat))
    curves, centres = route(edges, positions, halves) if edges else ((), ())
    for curve, colour in zip(curves, colours, strict=True):
        path = Path(curve, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        axes.add_patch(
            FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=13, color=colour, lw=1.8, gid="edge")
        )
    for label, centre in zip(labels, centres, strict=False):
        label.set_position(centre)
    for name, fill, position in zip(names, fills, positions, strict=True):
        (left, bottom), (width, height) = position - NODE_HALF, 2 * NODE_HALF
        style = "round,pad=0,rounding_size=0.15"
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=fill, ec="0.25", gid="node"))
        axes.text(position[0], position[1], name, fontsize=15, ha="center", va="center_baseline", zorder=5)
    kinds = {kind: colour for kind, colour in COLOURS.items() if colour in colours}
    kinds |= {"concatenation": "0.6"} if concat else {}
    handles = [Line2D([], [], color=colour, lw=2.5, label=kind) for kind, colour in kinds.items()]
    axes.legend(handles=handles, loc="lower center", ncols=5, frameon=False, fontsize=12)
    return figure


def activation_figure(records: Sequence[Record]) -> Figure:
    """Mean activation probability of each op group over epochs, a panel per cell type.

    Fig. 4b of the supplement of Zhou et al., NeurIPS 2020, split by group.

    Args:
      records: at least one, each with "epoch" and "activation" as `activation_by_group` has it.
    """
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
        axes.set(title=TITLES[cell_type], ylim=(-0.02, 1.02))
    panels[0].set_ylabel("mean activation probability")
    _legend(figure)
    return figure


def skip_share_figure(records: Sequence[Record]) -> Figure:
    """Share of skip connections in the derived cells over epochs.

    Args:
      records: at least one, each with "epoch" and "skip_share", a fraction per cell type.
    """
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for cell_type in records[-1]["skip_share"]:
        shares = [100 * record["skip_share"][cell_type] for record in records]
        _line(axes, records, shares, label=TITLES[cell_type], **STYLES[cell_type])
    axes.set(title="derived cells", ylabel="share of skip connections (%)", ylim=(-2, 102))
    _legend(figure)
    return figure


def diagnostics_figure(*runs: Sequence[Record]) -> Figure:
    """What tells how healthy a search is, over epochs, a panel for each of `DIAGNOSTICS` that the records have.

    Of several runs the mean of each epoch that all have, over a faint line each.

    Args:
      *runs: of each the records, at least one, with "epoch". All or some have one or more of: skip_share (fractions),
        depth and entropy (nats), each a number per cell type; alignment_val and alignment_train, from -1 to 1;
        eigenvalue.

    Raises:
      ValueError: the records have none of them.
    """
    records = runs[0] if len(runs) == 1 else _mean(runs)
    shown = [panel for panel in DIAGNOSTICS if any(field in record for record in records for field in panel[0])]
    if not shown:
        raise ValueError(f"records have none of the fields {', '.join(f for panel in DIAGNOSTICS for f in panel[0])}")
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = _figure(max(7, 4 * columns), 3.2 * rows + 0.8)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.remove()
    for axes, (fields, title, label) in zip(panels, shown, strict=False):
        for field in fields:
            _diagnostic(axes, field, records)
            for run in runs if len(runs) > 1 else ():
                _diagnostic(axes, field, run, marker="", linewidth=0.8, alpha=0.35, label="")
        axes.set(title=title, ylabel=label, xlim=(records[0]["epoch"] - 0.5, records[-1]["epoch"] + 0.5))
        if "skip_share" in fields:
            axes.set(ylim=(-0.02, 1.02))
        elif "alignment_val" in fields:
            axes.set(ylim=(-1.04, 1.04))
        else:
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        if "depth" in fields:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def _diagnostic(axes, field, records, **style):
    """The lines of one field."""
    having = [record for record in records if field in record]
    if having and isinstance(having[-1][field], Mapping):
        for cell_type in having[-1][field]:
            values = [record[field][cell_type] for record in having]
            _line(axes, having, values, **{"label": TITLES[cell_type], **STYLES[cell_type], **style})
    elif having:
        values = [record[field] for record in having]
        _line(axes, having, values, **{**STYLES.get(field, {"color": "black"}), **style})


def _mean(runs):
    """Records of the mean of each diagnostic, for the epochs that all runs have."""
    fields = [field for panel in DIAGNOSTICS for field in panel[0]]
    means = []
    for records in zip(*runs, strict=False):
        mean: dict[str, Any] = {"epoch": records[0]["epoch"]}
        for field in fields:
            values = [record[field] for record in records if field in record]
            if len(values) < len(records):
                continue
            if isinstance(values[0], Mapping):
                mean[field] = {t: sum(value[t] for value in values) / len(values) for t in values[0]}
            else:
                mean[field] = sum(values) / len(values)
        means.append(mean)
    return means


def curves_figure(records: Sequence[Record], held_out: str = "validation") -> Figure:
    """Losses and accuracies over epochs, in training and on held-out images.

    Args:
      records: at least one, each with "epoch" and train_loss (nats), train_accuracy (a fraction), and val_loss and
        val_accuracy, or test_loss and test_accuracy.
      held_out: 'validation' or 'test'.
    """
    other = {"validation": "val", "test": "test"}[held_out]
    figure = _figure(10, 4.8)
    panels = figure.subplots(1, 2)
    for axes, quantity, scale in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
        for part, style in (
            ("train", {"color": COLOURS["conv"], "label": "training"}),
            (other, {"color": COLOURS["skip"], "label": held_out, "linestyle": "--"}),
        ):
            values = [scale * record[f"{part}_{quantity}"] for record in records]
            _line(axes, records, values, **style)
    panels[0].set(title="loss", ylabel="cross-entropy (nats)")
    panels[1].set(title="accuracy", ylabel="accuracy (%)", ylim=(-2, 102))
    _legend(figure)
    return figure


def confusion_figure(confusion: Sequence[Sequence[int]]) -> Figure:
    """How many percent of the images of each label (row) were classified as what (column).

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
                axes.text(
                    column,
                    row,
                    f"{value:.0f}" if value >= 0.5 else "<1",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if value > 50 else "black",
                )
    return figure


def comparison_figure(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """Test accuracies of cells, ranked and against the size of their networks.

    Args:
      rows: name -> accuracy (a fraction) and params; names that begin with random_ are shown alike.
    """
    ranked = sorted(rows, key=lambda name: rows[name]["accuracy"])
    names = {"found": COLOURS["conv"], "all_skip": COLOURS["skip"]}
    figure = _figure(10, 4.8)
    left, right = figure.subplots(1, 2)
    for place, name in enumerate(ranked):
        accuracy, colour = 100 * rows[name]["accuracy"], names.get(name, "0.6")
        left.plot(accuracy, place, "o", color=colour, markersize=8)
        right.plot(rows[name]["params"], accuracy, "o", color=colour, markersize=8)
    left.set_yticks(range(len(ranked)), [name.replace("_", " ") for name in ranked])
    left.set(xlabel="test accuracy (%)")
    right.set(xlabel="weights", ylabel="test accuracy (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=names.get(name, "0.6"), marker="o", linestyle="", label=label)
        for name, label in (("found", "found"), ("random_0", "random"), ("all_skip", "all skip connections"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _legend(figure: Figure) -> None:
    """One legend below all panels, each label once."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False
        )


def _line(axes: Axes, records: Sequence[Record], values: Sequence[float], marker: str = "o", **style: Any) -> None:
    """One curve over epochs; markers keep a run of a single epoch visible."""
    epochs = [record["epoch"] for record in records]
    axes.plot(epochs, values, marker=marker, markersize=3.5, **style)
    axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
