"""The test accuracies of all NAS-Bench-201 cells (Dong, Yang, ICLR 2020) on one data set, from a text file.

The first line, `dataset NAME`, names the data set; a file without it is of cifar10. Each other line is
`[o1, o2, o3, o4, o5, o6],accuracy`: for each edge in the order of `spaces.nas_bench_201().edges` the index of its op in
`spaces.nas_bench_201().ops`, and the test accuracy in percent. There are 5^6 = 15,625 of them, in any order.
"""

import dataclasses
import os
import pathlib
import re

import numpy as np

from prdarts_jax import refusals
from prdarts_jax.spaces.genotypes import EdgeGenotype
from prdarts_jax.spaces.named import nas_bench_201
from prdarts_jax.spaces.space import SearchSpace

_BYTES = 2**24  # largest file; those of NAS-Bench-201 have half a million bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The test accuracies of all cells on one data set.

    Attributes:
      accuracies: in percent, f64[5, 5, 5, 5, 5, 5]: one axis per edge, one index per op.
      dataset: the name of the data set.
    """

    accuracies: np.ndarray
    dataset: str

    def is_of(self, name: str) -> bool:
        """Whether the data set has this name, or is in a file or folder of this path.

        >>> Table(np.zeros((5,) * 6), "ImageNet16-120").is_of("data/ImageNet16-120.npz")
        True
        """
        return self.dataset in (name, pathlib.Path(name).stem)

    def accuracy(self, genotype: EdgeGenotype) -> float:
        """Test accuracy of the cell in percent.

        Raises:
          ValueError: it is no cell of NAS-Bench-201; `rank` and `percentile` raise the same.
        """
        ops, there = nas_bench_201().ops, isinstance(genotype, EdgeGenotype)
        if not there or len(genotype.ops) != self.accuracies.ndim or not set(genotype.ops) <= set(ops):
            raise ValueError(f"genotype={genotype!r} must be an EdgeGenotype of six of the ops {', '.join(ops)}")
        return float(self.accuracies[tuple(ops.index(op) for op in genotype.ops)])

    def rank(self, genotype: EdgeGenotype) -> int:
        """The number of better cells plus 1: the best cell has rank 1, and equal cells have the same rank."""
        return 1 + int((self.accuracies > self.accuracy(genotype)).sum())

    def percentile(self, genotype: EdgeGenotype) -> float:
        """Percentage of all cells, this one included, that are not better than this one: 100 for the best cell."""
        return 100 * float((self.accuracies <= self.accuracy(genotype)).mean())


def covers(space: SearchSpace) -> bool:
    """Whether the table has every cell of a space: its edges are those of NAS-Bench-201, its ops are among those."""
    benchmark = nas_bench_201()
    return space.edges == benchmark.edges and set(space.ops) <= set(benchmark.ops)


def load(path: str | os.PathLike[str], dataset: str | None = None) -> Table:
    """Reads a table; see the module for the form of the file.

    Args:
      path: of the file.
      dataset: the name or path of the data set of which the table must be; None: of any.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is malformed or a cell comes twice (the message names the file and the line), cells are
        missing, or the table is of another data set.
    """
    file = refusals.file("accuracy table", path, most=_BYTES)
    space = nas_bench_201()
    edges, ops = space.shape
    form = re.compile(rf"\[([0-{ops - 1}](?:, [0-{ops - 1}]){{{edges - 1}}})\],([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
    accuracies = np.full((ops,) * edges, np.nan)
    lines = list(enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1))
    named = re.fullmatch(r"dataset (\S.{0,199})", lines[0][1]) if lines else None
    for number, line in lines[1:] if named else lines:
        found = form.fullmatch(line)
        if not found or not 0 <= (accuracy := float(found[2])) <= 100:
            raise ValueError(
                f"accuracy table {file} line {number} is {line[:60]!r}, but must be "
                f"[{', '.join(f'o{i}' for i in range(1, edges + 1))}],accuracy "
                f"with ops from 0 to {ops - 1} and an accuracy from 0 to 100; the first line may be: dataset NAME"
            )
        cell = tuple(map(int, found[1].split(", ")))
        if not np.isnan(accuracies[cell]):
            raise ValueError(f"accuracy table {file} line {number} is a second one of the cell {list(cell)}")
        accuracies[cell] = accuracy
    if missing := int(np.isnan(accuracies).sum()):
        raise ValueError(
            f"accuracy table {file} has {accuracies.size - missing} cells, but must have all {accuracies.size}"
        )
    table = Table(accuracies, named[1] if named else "cifar10")
    if dataset is not None and not table.is_of(dataset):
        raise ValueError(
            f"accuracy table {file} is of {table.dataset}, but must be of the data set of the search, "
            f"{refusals.shown(dataset)}; the first line of a table, 'dataset NAME', says of which it is (without it: "
            "cifar10)"
        )
    return table
