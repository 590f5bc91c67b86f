"""The accuracies of every NAS-Bench-201 cell, from a text file (Dong, Yang, ICLR 2020).

A line is `[o1, o2, o3, o4, o5, o6],accuracy`: the index in `spaces.nas_bench_201().ops` of the op of each edge, in the
order of its edges, and the test accuracy in percent. There are 5^6 = 15,625 of them, in any order.
"""

import dataclasses
import os
import re

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.spaces.genotypes import EdgeGenotype
from prdarts_jax.spaces.named import nas_bench_201
from prdarts_jax.spaces.space import SearchSpace

_BYTES = 2**24  # of a table; those of NAS-Bench-201 have half a million


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Test accuracies in percent, f64[5, 5, 5, 5, 5, 5], an axis an edge."""

    accuracies: np.ndarray

    def accuracy(self, genotype: EdgeGenotype) -> float:
        """Test accuracy of the cell in percent."""
        ops = nas_bench_201().ops
        return float(self.accuracies[tuple(ops.index(op) for op in genotype.ops)])

    def rank(self, genotype: EdgeGenotype) -> int:
        """1 for the best cell: one more than the number of better cells, so that equal cells share the best rank."""
        return 1 + int((self.accuracies > self.accuracy(genotype)).sum())

    def percentile(self, genotype: EdgeGenotype) -> float:
        """Percent of all cells, the cell included, that are no better than it: 100 for the best."""
        return 100 * float((self.accuracies <= self.accuracy(genotype)).mean())


def covers(space: SearchSpace) -> bool:
    """Whether every cell of a space is one of the table's: it has NAS-Bench-201's edges, and no other ops."""
    benchmark = nas_bench_201()
    return space.edges == benchmark.edges and set(space.ops) <= set(benchmark.ops)


def load(path: str | os.PathLike[str]) -> Table:
    """Reads the file; see the module for its form.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is malformed or comes twice, or lines are missing; the sentence names the file and the line.
    """
    file = refusals.file("accuracy table", path, most=_BYTES)
    space = nas_bench_201()
    edges, ops = space.shape
    form = re.compile(rf"\[([0-{ops - 1}](?:, [0-{ops - 1}]){{{edges - 1}}})\],([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
    accuracies = np.full((ops,) * edges, np.nan)
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = form.fullmatch(line)
        if not found or not 0 <= (accuracy := float(found[2])) <= 100:
            raise ValueError(
                f"accuracy table {file} line {number} is {line[:60]!r}, but must be "
                f"[{', '.join(f'o{i}' for i in range(1, edges + 1))}],accuracy "
                f"with ops from 0 to {ops - 1} and an accuracy from 0 to 100"
            )
        cell = tuple(map(int, found[1].split(", ")))
        if not np.isnan(accuracies[cell]):
            raise ValueError(f"accuracy table {file} line {number} is a second one of the cell {list(cell)}")
        accuracies[cell] = accuracy
    if missing := int(np.isnan(accuracies).sum()):
        raise ValueError(
            f"accuracy table {file} has {accuracies.size - missing} cells, but must have all {accuracies.size}"
        )
    return Table(accuracies)
