"""The picture of a cell, as a matplotlib figure."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from scipy.interpolate import pchip_interpolate
from scipy.optimize import isotonic_regression

from prdarts_jax import ops
from prdarts_jax.run.plots import COLOURS, TITLES
from prdarts_jax.spaces import genotypes

_WIDTH, _HEIGHT = 12.0, 6.0  # all lengths are in inches
_COLUMN = 0.95  # smallest distance of columns; a drawing of more than 11 is wider
_NODE_HALF = np.array([0.34, 0.24])
_NODE, _LABEL, _LINE = 0.7, 0.45, 0.3  # heights that they occupy
_MIDDLE = 3.05  # of the drawing, between the title and the legend
_MARGIN = 0.6  # left and right of the middle of the outer columns


def cell_figure(genotype: genotypes.AnyGenotype, cell_type: str) -> Figure:
    """The cell as a directed graph from left to right, as DARTS draws it: 1800 x 900 pixels, wider if it is deep.

    A node's column is its depth, the length of the longest path from an input. Entries of the group 'none' are not
    drawn. Nodes are numbered as in the papers. Artists have the gid "node", "edge" or "op", so that they can be found
    and restyled.

    Args:
      genotype: the cells; only the one drawn is read.
      cell_type: one of `genotypes.cells(genotype)`.
    """
    entries = genotypes.cells(genotype)[cell_type]
    inputs, outputs = genotypes.ends(genotype, cell_type)
    concat = () if isinstance(genotype, genotypes.EdgeGenotype) else outputs
    output = max(target for _, _, target in entries) + bool(concat)
    edges = [(source, target, op) for op, source, target in entries if ops.group(op) != "none"]
    edges += [(node, output, "") for node in concat]
    names = ["$c_{k-2}$", "$c_{k-1}$"][-len(inputs) :]
    names += [str(node - 2 if concat else node) for node in range(len(inputs), output)] + ["$c_k$"]
    fills = ["#D5E8D4" if node in inputs else "#9CCBEE" for node in range(output)] + ["#F5DE8A"]

    places, chains = _layout(edges, len(inputs), output + 1)
    width = places[:, 0].max() + _MARGIN
    figure = Figure(figsize=(width, _HEIGHT), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, _HEIGHT))
    axes.set_axis_off()
    axes.text(width / 2, _HEIGHT - 0.4, TITLES[cell_type], fontsize=16, ha="center", va="center")
    kinds: dict[str, str] = {}
    for (_, target, op), chain in zip(edges, chains, strict=True):
        kind, colour = (ops.group(op), COLOURS[ops.group(op)]) if op else ("concatenation", "0.6")
        kinds[kind] = colour
        points = places[chain]
        # The arrows into a node are spread along its side, in the order in which they come.
        rivals = sorted((other for other in chains if other[-1] == target), key=lambda other: places[other[-2], 1])
        points[0, 0] += _NODE_HALF[0]
        points[-1] += (-_NODE_HALF[0], 0.2 * (2 * rivals.index(chain) + 1 - len(rivals)) / len(rivals))
        along = np.linspace(points[0, 0], points[-1, 0], 60)
        path = Path(np.stack([along, pchip_interpolate(*points.T, along)], axis=1))
        axes.add_patch(
            FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=13, color=colour, lw=1.8, gid="edge")
        )
        if op:
            x, y = points[-2]
            text = op.replace("_with_", "\nwith_")  # otherwise it is as wide as two columns
            label = axes.text(x, y, text, fontsize=11, color=colour, ha="center", va="center", gid="op", zorder=4)
            label.set_bbox({"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"})
    for name, fill, (x, y) in zip(names, fills, places, strict=False):  # the nodes come first
        corner, (wide, high) = (x - _NODE_HALF[0], y - _NODE_HALF[1]), 2 * _NODE_HALF
        shape = "round,pad=0,rounding_size=0.15"
        axes.add_patch(FancyBboxPatch(corner, wide, high, boxstyle=shape, fc=fill, ec="0.25", gid="node"))
        axes.text(x, y, name, fontsize=15, ha="center", va="center_baseline", zorder=5)
    order = [kind for kind in (*COLOURS, "concatenation") if kind in kinds]
    handles = [Line2D([], [], color=kinds[kind], lw=2.5, label=kind) for kind in order]
    axes.legend(handles=handles, loc="lower center", ncols=5, frameon=False, fontsize=12)
    return figure


def _layout(edges: Sequence[tuple[int, int, str]], inputs: int, nodes: int) -> tuple[np.ndarray, list[list[int]]]:
    """The positions of nodes, labels and lines.

    Nodes are in every other column. An edge has a point in each column between its ends; its label is at the last one.

    Args:
      edges: (source, target, op or '') of every arrow.
      inputs: number of input nodes, which come first.
      nodes: number of all nodes, including the output, which is the last.

    Returns:
      The positions f64[points, 2] of the nodes and then of the points of edges, and the indices of each edge's points.
    """
    depth = [0] * nodes
    for node in range(inputs, nodes):
        depth[node] = 1 + max((depth[source] for source, target, _ in edges if target == node), default=0)
    columns = [2 * d for d in depth]
    columns[-1] = max(columns[:-1]) + (2 if any(op for _, target, op in edges if target == nodes - 1) else 1)
    sizes, chains = [_NODE] * nodes, []
    for source, target, op in edges:
        between = range(columns[source] + 1, columns[target])
        chains.append([source, *range(len(columns), len(columns) + len(between)), target])
        columns += between
        sizes += [_LINE] * (len(between) - bool(op)) + [_LABEL] * bool(op)
    y = _heights(np.array(columns), np.array(sizes), [pair for chain in chains for pair in itertools.pairwise(chain)])
    if y[0] < y[inputs - 1]:  # the first input goes above the second
        y = -y
    x = _MARGIN + np.array(columns) * max(_COLUMN, (_WIDTH - 2 * _MARGIN) / max(columns))
    y -= (y.max() + y.min()) / 2
    return np.stack([x, _MIDDLE + y * min(1.6, 3.5 / max(np.ptp(y), 1))], axis=1), chains


def _heights(columns: np.ndarray, sizes: np.ndarray, lines: Sequence[tuple[int, int]]) -> np.ndarray:
    """Heights of points for a drawing with few crossings, after Sugiyama, Tagawa and Toda (Methods for Visual
    Understanding of Hierarchical System Structures, 1981).

    The points of a column are sorted by the mean height of the points that lines join them to, and come as near to that
    height as their sizes allow. This is repeated from several random heights, and the best drawing is kept.

    Args:
      columns: the column of each point, i64[points].
      sizes: the height that each point needs, f64[points].
      lines: pairs of points in neighbouring columns, from left to right.
    """
    joined = np.zeros((len(columns), len(columns)))
    for pair in lines:
        joined[pair[::-1]] = 1
    right, left = np.nonzero(joined)
    beside = np.equal.outer(columns[left], columns[left])  # lines between the same two columns
    members = [np.flatnonzero(columns == column) for column in range(columns.max() + 1)]
    sweeps = [(joined, members), (joined.T, members[::-1])] * 3
    sweeps += [(joined + joined.T, members), (joined + joined.T, members[::-1])] * 6
    generator, lowest = np.random.default_rng(0), np.inf
    for _ in range(30):
        y = generator.normal(size=len(columns))
        for neighbours, order in sweeps:
            for points in order:
                counts = neighbours[points].sum(axis=1)
                wanted = np.where(counts > 0, neighbours[points] @ y / np.maximum(counts, 1), y[points])
                places = np.lexsort((y[points], wanted))
                points, wanted = points[places], wanted[places]
                offsets = np.cumsum(sizes[points]) - sizes[points] / 2
                y[points] = isotonic_regression(wanted - offsets).x + offsets
        starts, stops = np.subtract.outer(y[left], y[left]), np.subtract.outer(y[right], y[right])
        cost = np.sum(beside & (starts * stops < 0)) / 2 + 0.1 * np.abs(y[left] - y[right]).sum()
        if cost < lowest:
            lowest, best = cost, y
    return best
