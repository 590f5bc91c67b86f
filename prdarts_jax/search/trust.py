"""Reasons to doubt the result of a search, one sentence for each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prdarts_jax.spaces import genotypes

Activation = Mapping[str, np.ndarray]  # for each cell type f32[epochs, edges, ops]


def doubts(
    cells: Mapping[str, int],
    num_classes: int,
    records: Sequence[Mapping[str, Any]],
    activation: Activation,
    genotype: Any = None,
) -> list[str]:
    """The reasons to doubt the result of a search; an empty list if there are none.

    Args:
      cells: cell type -> number of its cells in the supernet.
      num_classes: number of classes.
      records: of the epochs, each with `step`, the number of steps since the beginning, `train_accuracy`, a fraction,
        and `genotype`, the derived genotype's fields.
      activation: how strongly each op took part after each epoch, for each cell type f32[epochs, edges, ops], at least
        0; always 0 for an op that is no candidate, and 0 or 1 if cells are drawn at random.
      genotype: the cell that the search returns; only a `Genotype` can be doubted.

    >>> records = [{"step": 100, "train_accuracy": 0.11, "genotype": {"ops": ["none"]}}] * 2
    >>> doubts({"normal": 3}, 10, records, {"normal": np.ones((2, 1, 5))})
    ['the weights are hardly trained: training accuracy 11.0 %, chance is 10.0 %']
    """
    found = [
        f"no cell of the supernet is of the type {cell_type}, so its logits were not trained and the {cell_type} cell "
        "is random; use more cells"
        for cell_type, count in cells.items()
        if not count
    ]
    accuracy = records[-1]["train_accuracy"]
    chance = 1 / num_classes
    if num_classes > 1 and accuracy < chance + min(chance / 2, 0.1):
        found.append(
            f"the weights are hardly trained: training accuracy {100 * accuracy:.1f} %, chance is {100 * chance:.1f} %"
        )
    trained = {t: of_type for t, of_type in activation.items() if cells[t]}
    drawn = all(np.all((of_type == 0) | (of_type == 1)) for of_type in trained.values())  # random search
    if not drawn:
        found += _unreached(trained, records[-1]["step"])
        found += _undirected(trained)
        found += _unsettled(records)
    for cell_type, entries in genotypes.cells(genotype).items() if isinstance(genotype, genotypes.Genotype) else ():
        if unread := {0, 1} - {source for _, source, _ in entries}:
            found.append(
                f"the {cell_type} cell reads only one of its two inputs, since both ops of a node may be on one edge; "
                f"a method that keeps distinct inputs gives the first node both: no op takes input {unread.pop()}"
            )
    return found


def _unsettled(records):
    """A sentence if the derived cell changed in the last tenth of the epochs, or in the last two."""
    last = max(2, len(records) // 10)
    if len(records) > last and len({json.dumps(record["genotype"]) for record in records[-last:]}) > 1:
        yield f"the derived cell still changed in the last {last} of {len(records)} epochs; search longer"


def _unreached(activation, steps):
    """A sentence for each cell type with ops that took part in less than one of the steps: the sum of their activations
    over the steps is below 1, though not 0."""
    for cell_type, of_type in activation.items():
        total = steps * of_type.mean(axis=0)
        if count := np.count_nonzero((total > 0) & (total < 1)):
            yield (
                f"hardly any gradient reached some ops of the {cell_type} cell: by their activations {count} of "
                f"{np.count_nonzero(total)} took part in less than one step; search longer"
            )


def _undirected(activation):
    """A sentence for each cell type whose ops have moved apart no further than random walks with the same steps would.

    Random walks get further in one of a hundred searches: the largest of m normal numbers is beyond sqrt(2 ln(200 m))
    with a probability below 1 %.
    """
    for cell_type, of_type in activation.items():
        epochs = len(of_type)
        if epochs < 4:
            continue
        contrast = of_type - of_type.mean(axis=-1, keepdims=True)  # a temperature moves all ops of an edge
        step = np.sqrt(np.mean(np.diff(contrast, axis=0) ** 2))
        moved = np.abs(contrast[-1] - contrast[0]).max()
        if moved <= step * np.sqrt((epochs - 1) * 2 * np.log(200 * of_type[0].size)):
            yield (
                f"the ops of the {cell_type} cell moved apart no further than random steps would take them: an "
                f"activation changed by at most {moved:.2g} in the search and by {step:.2g} per epoch; search longer"
            )
