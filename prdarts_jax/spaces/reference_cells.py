"""Cells to compare a found one with: random ones, and that of skip connections alone."""

import numpy as np

from prdarts_jax import ops
from prdarts_jax.spaces.genotypes import AnyGenotype
from prdarts_jax.spaces.space import SearchSpace


def random(space: SearchSpace, generator: np.random.Generator) -> AnyGenotype:
    """A cell drawn uniformly: the op of every edge, or every node's different inputs and then an op for each.

    An op is one of the edge's candidates; for the entry of a node not of the group 'none', unless the edge has nothing
    else.

    Raises:
      ValueError: no genotype holds the space's cells.
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
    """The cell of skip connections alone: on every edge, or from the lowest inputs of every node.

    Raises:
      ValueError: the space has no such cell, since too few edges of a node may have a skip connection.
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
