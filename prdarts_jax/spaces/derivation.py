"""Derivation: from scores of ops on edges to a genotype, and genotypes to compare it with."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from prdarts_jax.spaces import SearchSpace, genotypes
from prdarts_jax.spaces.genotypes import AnyGenotype


def derive(space: SearchSpace, scores: Mapping[str, ArrayLike], *, distinct_inputs: bool) -> AnyGenotype:
    """The genotype of the strongest ops.

    Where a node keeps `entries_per_node`, they are its strongest ops other than `none`. Without distinct_inputs several
    may share an edge (PR-DARTS, Zhou et al. 2020, scores being the activation probabilities). With it an edge keeps at
    most one op, which is DARTS section 2.4 (Liu et al. 2019): per edge its best op, per node the two edges where that
    is largest. Where every edge keeps one op (NAS-Bench-201), it is the strongest, which may be `none`.

    Args:
      space: names the edges and ops of the scores' axes, and which op may stand where.
      scores: {cell type: float[edges, ops]}. An op of score -inf is never chosen; where a node has no other left, the
        entry is `none` from its lowest input that is not used.
      distinct_inputs: whether the entries of a node must come from different nodes; without meaning where every edge
        keeps one op.

    Returns:
      A Genotype: entries of a node by falling score, ties to the lower edge, then the lower op; every intermediate node
      is concatenated. Or an EdgeGenotype: ties to the lower op.

    Raises:
      ValueError: scores of another shape than the space's, NaN among them, or a space whose cells are neither of
        the two.
    """
    numbers = _checked(space, scores)
    if not space.entries_per_node:
        return _genotype(space, {cell: _best_of_edges(space, values) for cell, values in numbers.items()})
    return _genotype(space, {cell: _best_of_nodes(space, values, distinct_inputs) for cell, values in numbers.items()})


def derive_above(space: SearchSpace, scores: Mapping[str, ArrayLike], threshold: float) -> AnyGenotype:
    """The genotype of the ops above a threshold (Fair DARTS, Chu et al., ECCV 2020, section 4.2).

    An edge offers its best op other than `none` if the score is above the threshold; a node keeps the strongest of what
    its edges offer, at most `entries_per_node`. What is missing are entries of `none`. A cell of NAS-Bench-201 has
    exactly one op an edge, `none` among them, so there the strongest op of each edge stands whatever its score.

    Args, returns and raises as `derive`; the scores are the sigmoids of the logits, the paper's threshold is 0.85.
    """
    numbers = _checked(space, scores)
    if space.entries_per_node:
        numbers = {cell: np.where(values > threshold, values, -np.inf) for cell, values in numbers.items()}
    return derive(space, numbers, distinct_inputs=True)


def limit_skips(space: SearchSpace, scores: Mapping[str, ArrayLike], most: int) -> AnyGenotype:
    """DARTS's genotype of at most so many skip connections in the normal cell (P-DARTS, Chen et al., ICCV 2019, section
    3.3.2).

    As long as there are more, the weakest of those chosen gets the score -inf, and the cell is derived again. Where
    nothing but an entry of `none` could then stand in its place, the genotype keeps the skip connections it has.

    Args:
      space: as for `derive`.
      scores: as for `derive`.
      most: how many skip connections the cell may have; the paper's M is 2.

    Raises:
      ValueError: as `derive`.
    """
    numbers = _checked(space, scores)
    genotype = derive(space, numbers, distinct_inputs=True)
    while True:
        cell = genotypes.cells(genotype)["normal"]
        skips = [space.edges.index((s, t)) for op, s, t in cell if op == "skip_connect"]
        if len(skips) <= max(most, 0):
            return genotype
        values, skip = numbers["normal"], space.ops.index("skip_connect")
        values[min(skips, key=lambda edge: (values[edge, skip], -edge)), skip] = -np.inf
        fewer = derive(space, numbers, distinct_inputs=True)
        if space.entries_per_node and _nones(fewer) > _nones(genotype):
            return genotype
        genotype = fewer


def random(space: SearchSpace, generator: np.random.Generator) -> AnyGenotype:
    """A cell drawn uniformly: the op of every edge, or every node's different inputs and then an op for each.

    An op is one of the edge's candidates; for the entry of a node not `none`, unless the edge has nothing else.

    Raises:
      ValueError: a space whose cells are neither a Genotype's nor an EdgeGenotype's.
    """

    def op(cell_type, source, target):
        edge = space.edges.index((source, target))
        names = [o for o, may in zip(space.ops, space.candidates(cell_type)[edge], strict=True) if may]
        if space.entries_per_node:
            names = [name for name in names if name != "none"] or ["none"]
        return names[generator.integers(len(names))]

    def entries(cell_type):
        return [
            (op(cell_type, int(source), node), int(source))
            for node in range(space.inputs, space.nodes)
            for source in sorted(generator.choice(node, space.entries_per_node, replace=False))
        ]

    if not space.entries_per_node:
        return _genotype(space, {t: [op(t, *edge) for edge in space.edges] for t in space.cell_types})
    return _genotype(space, {t: entries(t) for t in space.cell_types})


def all_skip(space: SearchSpace) -> AnyGenotype:
    """The cell of skip connections alone: on every edge, or from the lowest inputs of every node.

    Raises:
      ValueError: the space has no such cell, since too few edges of a node may have a skip connection.
    """
    cells: dict[str, list] = {}
    for cell_type in space.cell_types:
        candidates = space.candidates(cell_type)[:, space.op_indices("skip")]
        cells[cell_type] = []
        for node in range(space.inputs, space.nodes):
            sources = [s for (s, t), may in zip(space.edges, candidates, strict=True) if t == node and may.any()]
            needed = space.entries_per_node or node
            if len(sources) < needed:
                raise ValueError(
                    f"space {space.name!r} has no cell of skip connections alone: node {node} of the {cell_type} cell "
                    f"has {len(sources)} edges that may be skip_connect, but needs {needed}"
                )
            skips = [("skip_connect", source) for source in sources[:needed]]
            cells[cell_type] += skips if space.entries_per_node else [op for op, _ in skips]
    return _genotype(space, cells)


def _checked(space: SearchSpace, scores: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """A copy of the scores, {cell type: f64[edges, ops]}, -inf where the op may not stand on the edge."""
    numbers = {}
    for cell in space.cell_types:
        values = np.asarray(scores[cell], np.float64)
        if values.shape != space.shape:
            raise ValueError(
                f"scores[{cell!r}] has shape {values.shape}, but the space {space.name!r} "
                f"needs (edges, ops) = {space.shape}"
            )
        if np.isnan(values).any():
            edge, op = np.argwhere(np.isnan(values))[0]
            raise ValueError(f"scores[{cell!r}][{edge}, {op}]=nan, but every score must be a number")
        numbers[cell] = np.where(space.candidates(cell), values, -np.inf)
    return numbers


def _best_of_edges(space: SearchSpace, scores: np.ndarray) -> list[str]:
    return [space.ops[row.argmax()] if row.max() > -np.inf else "none" for row in scores]


def _best_of_nodes(space: SearchSpace, scores: np.ndarray, distinct_inputs: bool) -> list[tuple[str, int]]:
    entries = []
    for node in range(space.inputs, space.nodes):
        ranked = sorted(
            (-scores[edge, op], edge, op)
            for edge, (_, target) in enumerate(space.edges)
            if target == node
            for op, name in enumerate(space.ops)
            if name != "none" and scores[edge, op] > -np.inf
        )
        kept: list[tuple[str, int]] = []
        for _, edge, op in ranked:
            source, _ = space.edges[edge]
            if not distinct_inputs or all(source != other for _, other in kept):
                kept.append((space.ops[op], source))
        kept = kept[: space.entries_per_node]
        free = [source for source in range(node) if all(source != other for _, other in kept)]
        entries += kept + [("none", source) for source in free[: space.entries_per_node - len(kept)]]
    return entries


def _genotype(space: SearchSpace, cells: Mapping[str, Iterable]) -> AnyGenotype:
    """The genotype of the entries of every cell, or of the ops of every edge."""
    if not space.entries_per_node:
        return genotypes.EdgeGenotype(tuple(cells["normal"]))
    if (space.inputs, space.entries_per_node) != (2, 2):
        raise ValueError(
            f"space {space.name!r} has inputs={space.inputs} and entries_per_node={space.entries_per_node}, "
            "but a Genotype has 2 of both"
        )
    concat = tuple(range(space.inputs, space.nodes))
    return genotypes.Genotype(tuple(cells["normal"]), concat, tuple(cells["reduce"]), concat)


def _nones(genotype: AnyGenotype) -> int:
    return sum(op == "none" for op, _, _ in genotypes.cells(genotype)["normal"])
