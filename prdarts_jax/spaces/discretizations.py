"""Discretizations: from scores of ops on edges to a genotype.

Each is a frozen, hashable object, called with a space and the scores {cell type: float[edges, ops]} of its ops:

    discretizations.strongest(distinct_inputs=True)(space, scores)

An op of score -inf is never chosen. If a node then has too few entries, it gets the op `none` from its first unused
inputs; if an edge has no op, it gets the op `none`. Ties go to the edge with the lower index, then to the op with the
lower index.

All raise ValueError if scores are NaN or of another shape than the space's, or if no class of genotypes can describe
the space's cells.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from prdarts_jax import ops
from prdarts_jax.fields import checked, from_to
from prdarts_jax.spaces import genotypes
from prdarts_jax.spaces.genotypes import AnyGenotype
from prdarts_jax.spaces.space import SearchSpace

Scores = Mapping[str, ArrayLike]
Discretization = Callable[[SearchSpace, Scores], AnyGenotype]


@checked
@dataclasses.dataclass(frozen=True)
class strongest:
    """The genotype of the strongest ops.

    A node keeps the `entries_per_node` strongest ops outside the group 'none' on the edges into it, by falling score.
    Without `distinct_inputs` several of them may share an edge (PR-DARTS, Zhou et al. 2020; the scores are activation
    probabilities). With it an edge keeps at most one op, which is DARTS section 2.4 (Liu et al. 2019): the best op per
    edge, and per node the two edges whose best ops are strongest. If every edge of the space keeps one op
    (NAS-Bench-201), it is the strongest of all its ops, the op `none` included.
    """

    distinct_inputs: bool = True

    def __call__(self, space: SearchSpace, scores: Scores) -> AnyGenotype:
        """The genotype of the scores."""
        numbers = _checked(space, scores)
        keep = self._of_nodes if space.entries_per_node else _of_edges
        return space.genotype({cell: keep(space, values) for cell, values in numbers.items()})

    def _of_nodes(self, space, scores):
        entries = []
        for node in range(space.inputs, space.nodes):
            ranked = sorted(
                (-scores[edge, op], edge, op)
                for edge, (_, target) in enumerate(space.edges)
                if target == node
                for op, name in enumerate(space.ops)
                if ops.group(name) != "none" and scores[edge, op] > -np.inf
            )
            kept: list[tuple[str, int]] = []
            for _, edge, op in ranked:
                source, _ = space.edges[edge]
                if not self.distinct_inputs or all(source != other for _, other in kept):
                    kept.append((space.ops[op], source))
            kept = kept[: space.entries_per_node]
            free = [source for source in range(node) if all(source != other for _, other in kept)]
            entries += kept + [("none", source) for source in free[: space.entries_per_node - len(kept)]]
        return entries


@checked
@dataclasses.dataclass(frozen=True)
class above:
    """The genotype of the ops above a threshold (Fair DARTS, Chu et al., ECCV 2020).

    An edge offers its best op outside the group 'none' if its score is above the threshold. A node keeps the strongest
    ops that its edges offer, at most `entries_per_node`; missing entries become the op `none`. If every edge of the
    space keeps one op (NAS-Bench-201), it is the strongest one whatever its score. The paper's threshold is 0.85, and
    its scores are the sigmoids of the logits.
    """

    threshold: float

    def __call__(self, space: SearchSpace, scores: Scores) -> AnyGenotype:
        """The genotype of the scores."""
        numbers = _checked(space, scores)
        if space.entries_per_node:
            numbers = {cell: np.where(values > self.threshold, values, -np.inf) for cell, values in numbers.items()}
        return strongest(distinct_inputs=True)(space, numbers)


@checked
@dataclasses.dataclass(frozen=True)
class limited_skips:
    """DARTS's genotype with at most `most` ops of the group 'skip' in the normal cell (P-DARTS, Chen et al., ICCV 2019,
    section 3.3.2).

    As long as there are more, the weakest chosen one gets the score -inf, and the cell is derived again. If only the op
    `none` could replace it, the genotype keeps the skip connections that it has. The paper's `most`, M, is 2.
    """

    most: Annotated[int, from_to(0, 1000)]

    def __call__(self, space: SearchSpace, scores: Scores) -> AnyGenotype:
        """The genotype of the scores."""
        numbers = _checked(space, scores)
        genotype = strongest(distinct_inputs=True)(space, numbers)
        while len(skips := _entries(genotype, "skip")) > self.most:
            values, chosen = numbers["normal"], [(space.edges.index((s, t)), space.ops.index(op)) for op, s, t in skips]
            values[min(chosen, key=lambda at: (values[at], -at[0]))] = -np.inf
            fewer = strongest(distinct_inputs=True)(space, numbers)
            if space.entries_per_node and len(_entries(fewer, "none")) > len(_entries(genotype, "none")):
                break
            genotype = fewer
        return genotype


def chosen(space: SearchSpace, choice: Scores) -> AnyGenotype:
    """The genotype of the chosen ops, bool[edges, ops] for each cell type, and of no others.

    Of more chosen ops than a node or an edge can keep, the first ones are kept; missing ones become the op `none`.

    >>> import numpy as np
    >>> from prdarts_jax import spaces
    >>> space = spaces.nas_bench_201()
    >>> chosen(space, {"normal": np.arange(5) == np.array([[3], [3], [0], [3], [1], [3]])}).ops[2:5]
    ('none', 'nor_conv_3x3', 'skip_connect')
    """
    return strongest(distinct_inputs=False)(space, {t: np.where(c, 0.0, -np.inf) for t, c in choice.items()})


def _of_edges(space: SearchSpace, scores: np.ndarray) -> list[str]:
    return [space.ops[row.argmax()] if row.max() > -np.inf else "none" for row in scores]


def _entries(genotype: AnyGenotype, group: str) -> list[tuple[str, int, int]]:
    """(op, source, target) of the ops of a group in the normal cell."""
    return [entry for entry in genotypes.cells(genotype)["normal"] if ops.group(entry[0]) == group]


def _checked(space: SearchSpace, scores: Scores) -> dict[str, np.ndarray]:
    """A copy of the scores, {cell type: f64[edges, ops]}, with -inf for ops that are no candidates of their edge."""
    numbers = {}
    for cell in space.cell_types:
        if cell not in scores:
            raise ValueError(
                f"scores must have arrays of the cell types {', '.join(space.cell_types)}, but lack {cell!r}"
            )
        values = np.asarray(scores[cell], np.float64)
        if values.shape != space.shape:
            raise ValueError(
                f"scores[{cell!r}] has shape {values.shape}, but the space {space.name!r} "
                f"needs (edges, ops) = {space.shape}"
            )
        if np.isnan(values).any():
            edge, op = np.argwhere(np.isnan(values))[0]
            raise ValueError(
                f"scores[{cell!r}][{edge}, {op}]=nan, but every score must be a number; a search whose logits become "
                "nan needs a smaller config.logits.learning_rate"
            )
        numbers[cell] = np.where(space.candidates(cell), values, -np.inf)
    return numbers
