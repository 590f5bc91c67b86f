"""Cells with which found cells are compared: random cells, and the cell of skip connections alone."""

import numpy as np

from prdarts_jax import ops
from prdarts_jax.spaces.genotypes import AnyGenotype
from prdarts_jax.spaces.space import SearchSpace


def random(space: SearchSpace, generator: np.random.Generator) -> AnyGenotype:
    """A cell drawn uniformly from a space.

    If every edge of the space keeps an op, one of its candidates is drawn for each. Otherwise `entries_per_node`
    different inputs are drawn for each node, and for each of them one of the edge's candidates outside the group
    'none', or the op `none` if there is no other.

    Raises:
      ValueError: no class of genotypes can describe the space's cells.
    """

    def op(cell_type, source, target):
        edge = space.edges.index((source, target))
        names = _candidates(space, cell_type)[edge]
        if space.entries_per_node:
            names = [name for name in names if ops.group(name) != "none"] or ["none"]
        return names[generator.integers(len(names))]

    def entries(cell_type):
        return [
            (op(cell_type, int(source), node), int(source))
            for node in range(space.inputs, space.nodes)
            for source in sorted(generator.choice(node, space.entries_per_node, replace=False))
        ]

    if not space.entries_per_node:
        return space.genotype({t: [op(t, *edge) for edge in space.edges] for t in space.cell_types})
    return space.genotype({t: entries(t) for t in space.cell_types})


def all_skip(space: SearchSpace) -> AnyGenotype:
    """The cell of skip connections alone: on every edge, or from the first inputs of every node that may have one.

    Raises:
      ValueError: the space has no such cell, since too few edges into a node may have a skip connection.
    """
    cells: dict[str, list] = {}
    for cell_type in space.cell_types:
        candidates = zip(space.edges, _candidates(space, cell_type), strict=True)
        skips = [(edge, [op for op in names if ops.group(op) == "skip"]) for edge, names in candidates]
        cells[cell_type] = []
        for node in range(space.inputs, space.nodes):
            found = [(names[0], source) for (source, target), names in skips if target == node and names]
            needed = space.entries_per_node or node
            if len(found) < needed:
                raise ValueError(
                    f"space {space.name!r} has no cell of skip connections alone: node {node} of the {cell_type} cell "
                    f"has {len(found)} edges that may be a skip connection, but needs {needed}"
                )
            cells[cell_type] += found[:needed] if space.entries_per_node else [op for op, _ in found]
    return space.genotype(cells)


def _candidates(space: SearchSpace, cell_type: str) -> list[list[str]]:
    """The names of each edge's candidates."""
    return [[op for op, may in zip(space.ops, row, strict=True) if may] for row in space.candidates(cell_type)]
