"""The picture of a cell, as a matplotlib figure."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from prdarts_jax.run.cell_layout import HEIGHT, LABEL_MARGIN, NODE_HALF, WIDTH, place_nodes, route
from prdarts_jax.run.plots import COLOURS, TITLES
from prdarts_jax.spaces import genotypes, group


def cell_figure(genotype: genotypes.AnyGenotype, cell_type: str) -> Figure:
    """The cell as a directed graph from left to right, 1800 x 900 pixels, like the DARTS figures.

    A node's column is its depth, the longest path from an input. Rows, bends of the edges and
    places of the labels are those of least overlap found by a search without randomness. Entries of
    `none` are not drawn; nodes have the numbers that the papers give them.

    Artists carry a gid for whoever wants to restyle them: "node", "edge" and "op".

    Args:
      genotype: the cells; only the one drawn is read.
      cell_type: one of `genotypes.cells(genotype)`.
    """
    entries = genotypes.cells(genotype)[cell_type]
    inputs, outputs = genotypes.ends(genotype, cell_type)
    concat = () if isinstance(genotype, genotypes.EdgeGenotype) else outputs
    output = max(target for _, _, target in entries) + bool(concat)
    ops = [op for op, _, _ in entries if op != "none"] + [""] * len(concat)
    edges = [(source, target) for op, source, target in entries if op != "none"]
    edges += [(node, output) for node in concat]
    names = ["$c_{k-2}$", "$c_{k-1}$"][-len(inputs) :]
    names += [str(node - 2 if concat else node) for node in range(len(inputs), output)] + ["$c_k$"]
    fills = ["#D5E8D4" if node in inputs else "#9CCBEE" for node in range(output)] + ["#F5DE8A"]

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
