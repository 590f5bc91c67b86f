"""Numbers that say how a search goes, of the op weights alone; `genotypes` has those of the derived cell."""

from collections.abc import Mapping

import numpy as np


def entropy(activation: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over edges of the entropy of an edge's op weights, in nats.

    Args:
      activation: how strongly each op takes part, for each cell type f32[edges, ops], at least 0. Weights that do not
        add up to 1 are divided by their sum; an edge where all are 0 counts as 0.

    Returns:
      For each cell type a number from 0, where one op has all, to the logarithm of the number of ops.
    """

    def mean(weights):
        weights = np.asarray(weights, np.float64)
        total = weights.sum(axis=1, keepdims=True)
        share = weights / np.where(total > 0, total, 1.0)
        return float(-np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1).mean())

    return {cell_type: mean(weights) for cell_type, weights in activation.items()}
