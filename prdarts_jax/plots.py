"""The pictures of a run, as matplotlib figures; nothing here touches files."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from prdarts_jax.genotypes import Genotype
from prdarts_jax.spaces import CELL_TYPES, group

Record = Mapping[str, Any]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = MappingProxyType({"skip": "#D55E00", "conv": "#0072B2", "pool": "#009E73", "none": "#CC79A7", "all": "black"})
TITLES = MappingProxyType({"normal": "normal cell", "reduce": "reduction cell"})

# The drawing of a cell is laid out in inches.
WIDTH, HEIGHT = 12.0, 6.0
TOP, BOTTOM = 5.1, 1.0
NODE_HALF = np.array([0.34, 0.24])
LABEL_MARGIN = 0.06


def cell_figure(genotype: Genotype, cell_type: str) -> Figure:
    """The cell as a directed graph from left to right, 1800 x 900 pixels, like the DARTS figures.

    A node's column is its depth, the longest path from an input. Rows, bends of the edges and
    places of the labels are those of least overlap found by a search without randomness.

    Artists carry a gid for whoever wants to restyle them: "node", "edge" and "op".

    Args:
      genotype: the cells; only the one drawn is read.
      cell_type: "normal" or "reduce".
    """
    entries = getattr(genotype, cell_type)
    concat = getattr(genotype, f"{cell_type}_concat")
    output = len(entries) // 2 + 2
    ops = [op for op, _ in entries] + [""] * len(concat)
    edges = [(source, i // 2 + 2) for i, (_, source) in enumerate(entries)]
    edges += [(node, output) for node in concat]
    names = ["$c_{k-2}$", "$c_{k-1}$", *map(str, range(output - 2)), "$c_k$"]
    fills = ["#D5E8D4", "#D5E8D4", *["#9CCBEE"] * (output - 2), "#F5DE8A"]

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    axes.text(WIDTH / 2, HEIGHT - 0.4, TITLES[cell_type], fontsize=16, ha="center", va="center")

    colours = [COLOURS[group(op)] if op else "0.6" for op in ops]
    labels = [
        axes.text(0, 0, op, fontsize=11, color=colour, ha="center", va="center", gid="op", zorder=4)
        for op, colour in zip(ops, colours, strict=True)
        if op
    ]
    halves = np.full((len(edges), 2), -np.inf)  # an edge to the output has no label to overlap
    for i, label in enumerate(labels):
        extent = label.get_window_extent(renderer)
        halves[i] = np.array([extent.width, extent.height]) / figure.dpi / 2 + LABEL_MARGIN
        label.set_bbox({"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"})

    positions = _place_nodes(edges, output + 1)
    curves, centres = _route(edges, positions, halves)
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
    handles = [Line2D([], [], color=COLOURS[g], lw=2.5, label=g) for g in ("skip", "pool", "conv")]
    handles.append(Line2D([], [], color="0.6", lw=2.5, label="concatenation"))
    axes.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=12)
    return figure


def activation_figure(records: Sequence[Record]) -> Figure:
    """Mean activation probability of each op group over epochs, a panel per cell type.

    Fig. 4b of the supplement of Zhou et al., NeurIPS 2020, split by group.

    Args:
      records: at least one, each with "epoch" and "activation" as `activation_by_group` has it.
    """
    figure = _figure(10, 4.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cell_type in zip(panels, CELL_TYPES, strict=True):
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
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def skip_share_figure(records: Sequence[Record]) -> Figure:
    """Share of skip connections in the derived cells over epochs.

    Args:
      records: at least one, each with "epoch" and "skip_share", a fraction per cell type.
    """
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for cell_type, style in (
        ("normal", {"color": COLOURS["conv"], "marker": "o"}),
        ("reduce", {"color": COLOURS["skip"], "marker": "s", "linestyle": "--"}),
    ):
        shares = [100 * record["skip_share"][cell_type] for record in records]
        _line(axes, records, shares, label=TITLES[cell_type], **style)
    axes.set(title="derived cells", ylabel="share of skip connections (%)", ylim=(-2, 102))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


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
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
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


def _line(axes: Axes, records: Sequence[Record], values: Sequence[float], marker: str = "o", **style: Any) -> None:
    """One curve over epochs; markers keep a run of a single epoch visible."""
    epochs = [record["epoch"] for record in records]
    axes.plot(epochs, values, marker=marker, markersize=3.5, **style)
    axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _place_nodes(edges: Sequence[tuple[int, int]], nodes: int) -> np.ndarray:
    """Positions of nodes in inches, f64[nodes, 2]: columns by depth, rows of least entanglement.

    Every assignment of the inner nodes to rows is tried, judged as if edges were straight.
    """
    depth = [0] * nodes
    for target in range(2, nodes):
        depth[target] = 1 + max((depth[s] for s, t in edges if t == target), default=0)
    depth[-1] = max(depth[:-1]) + 1
    # The last gap is narrower: no edge there has a label.
    x = np.interp(np.append(depth[:-1], depth[-1] - 0.4), (0, depth[-1] - 0.4), (0.6, WIDTH - 0.6))

    rows = max(7, 2 * max(map(depth.count, depth)) - 1)
    middle = (rows - 1) / 2
    inner = np.array(list(itertools.product(range(rows), repeat=nodes - 3)), float)
    ends = np.tile([middle + 1.5, middle - 1.5, middle], (len(inner), 1))
    y = np.concatenate([ends[:, :2], inner, ends[:, 2:]], axis=1)

    def height(edge: tuple[int, int], at: float) -> np.ndarray:
        s, t = edge
        return y[:, s] + (y[:, t] - y[:, s]) * (at - x[s]) / (x[t] - x[s])

    straight = sorted(set(edges))
    cost = 0.05 * np.abs(inner - middle).sum(1)
    for i, j in itertools.combinations(range(nodes), 2):
        if x[i] == x[j]:
            cost += 100 * (np.abs(y[:, i] - y[:, j]) < 2)
    for s, t in straight:
        cost += 0.1 * np.abs(y[:, s] - y[:, t])
        for node in range(nodes):
            if x[s] < x[node] < x[t]:
                cost += 5 * np.maximum(0, 1.5 - np.abs(height((s, t), x[node]) - y[:, node]))
    for a, b in itertools.combinations(straight, 2):
        left, right = max(x[a[0]], x[b[0]]), min(x[a[1]], x[b[1]])
        if left < right:
            before = height(a, left) - height(b, left)
            after = height(a, right) - height(b, right)
            cost += 2.0 * (before * after < 0)
    best = y[np.argmin(cost)]
    return np.stack([x, np.interp(best, (0, rows - 1), (BOTTOM + 0.4, TOP - 0.3))], axis=1)


def _route(
    edges: Sequence[tuple[int, int]], positions: np.ndarray, halves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bends the edges and places their labels by coordinate descent on the overlaps.

    Args:
      edges: (source, target) of every arrow, an edge that carries two ops twice.
      positions: f64[nodes, 2], node centres.
      halves: f64[edges, 2], half width and height of the labels, -inf for none.

    Returns:
      Control points of the cubic curves, f64[edges, 4, 2], and label centres, f64[edges, 2].
    """
    bends = np.linspace(-1.8, 1.8, 13)
    places = np.linspace(0.2, 0.8, 13)
    controls = np.stack([_controls(edges, i, positions, bends) for i in range(len(edges))])
    centres = np.einsum("pc,ebcd->ebpd", _bernstein(places), controls)
    # Curves run strictly from left to right, so their heights over one grid tell how they meet.
    grid = np.linspace(0, WIDTH, 241)
    points = np.einsum("pc,ebcd->ebdp", _bernstein(np.linspace(0, 1, 61)), controls)
    heights = np.array([[np.interp(grid, x, y, np.nan, np.nan) for x, y in edge] for edge in points])
    paths = np.stack(np.broadcast_arrays(grid, heights), axis=-1)

    def inside(points: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
        return (np.abs(points - centre) < half).all(-1)

    own = np.zeros(centres.shape[:3])
    for i, (source, target) in enumerate(edges):
        length = positions[target, 0] - positions[source, 0]
        own[i] += 20 * (bends[:, None] / length) ** 2 + 8 * (places - 0.5) ** 2
        own[i] += 20 * ((heights[i] < BOTTOM) | (heights[i] > TOP)).sum(-1)[:, None]
        for node, position in enumerate(positions):
            own[i] += 1000 * inside(centres[i], position, halves[i] + NODE_HALF)
            if node not in (source, target):
                own[i] += 20 * inside(paths[i], position, NODE_HALF + 0.1).sum(-1)[:, None]

    chosen: dict[int, tuple[int, int]] = {}
    for _, i in itertools.product(range(3), range(len(edges))):
        cost = own[i].copy()
        for j, (bend, place) in chosen.items():
            if i != j:
                centre = centres[j, bend, place]
                gaps = heights[i] - heights[j, bend]
                meetings = 10 * (gaps[:, 1:] * gaps[:, :-1] < 0).sum(-1)
                cost += (meetings + 0.1 * (np.abs(gaps) < 0.2).sum(-1))[:, None]
                cost += 5 * inside(paths[i], centre, halves[j]).sum(-1)[:, None]
                cost += 5 * inside(paths[j, bend], centres[i][:, :, None], halves[i]).sum(-1)
                cost += 1000 * inside(centres[i], centre, halves[i] + halves[j])
        chosen[i] = divmod(int(np.argmin(cost)), len(places))
    picks = [chosen[i] for i in range(len(edges))]
    return (
        np.stack([controls[i, bend] for i, (bend, _) in enumerate(picks)]),
        np.stack([centres[i, bend, place] for i, (bend, place) in enumerate(picks)]),
    )


def _controls(edges: Sequence[tuple[int, int]], i: int, positions: np.ndarray, bends: np.ndarray) -> np.ndarray:
    """Control points of edge i for every bend, f64[bends, 4, 2], from right side to left side.

    Arrows that enter one node are spread along its side in the order of their sources' heights.
    """
    source, target = edges[i]
    rivals = [j for j, edge in enumerate(edges) if edge[1] == target]
    rivals.sort(key=lambda j: (positions[edges[j][0], 1], -j))
    entry = 0.2 * ((rivals.index(i) + 0.5) / len(rivals) * 2 - 1) * (len(rivals) > 1)
    start = positions[source] + np.array([NODE_HALF[0], 0.0])
    end = positions[target] + np.array([-NODE_HALF[0], entry])
    reach = np.array([0.4 * (end[0] - start[0]), 0.0])
    lift = np.stack([np.zeros_like(bends), bends], axis=1)
    return np.stack(np.broadcast_arrays(start, start + reach + lift, end - reach + lift, end), axis=1)


def _bernstein(t: np.ndarray) -> np.ndarray:
    """Weights of a cubic curve's control points at parameters t, f64[t, 4]."""
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
