"""Numbers that describe the course of a search, and how they are plotted. A new one is an entry of DIAGNOSTICS."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prdarts_jax import ops
from prdarts_jax.spaces import SearchSpace, genotypes


def entropy(activation: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over the edges of the entropy of their op weights, in nats: from 0, if one op has all, to log(ops).

    Args:
      activation: how strongly each op takes part, for each cell type f32[edges, ops], at least 0. Weights of an edge
        are divided by their sum; the entropy of an edge whose weights are all 0 is 0.
    """

    def mean(weights):
        weights = np.asarray(weights, np.float64)
        total = weights.sum(axis=1, keepdims=True)
        share = weights / np.where(total > 0, total, 1.0)
        return float(-np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1).mean())

    return {cell_type: mean(weights) for cell_type, weights in activation.items()}


def activation_by_group(space: SearchSpace, probabilities: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean activation probability, f32[edges, ops] per cell type, over the candidate ops of each group.

    Returns:
      {"normal": {"skip": ..., "conv": ..., "pool": ..., "noise": ..., "none": ..., "all": ...}, "reduce": ...},
      without the groups that the cell lacks.
    """
    kinds = np.array([ops.group(op) for op in space.ops])
    means = {}
    for cell_type in space.cell_types:
        values = np.asarray(probabilities[cell_type], np.float64)
        candidates = space.candidates(cell_type)
        means[cell_type] = {
            kind: float(values[candidates & (kinds == kind)].mean())
            for kind in ("skip", "conv", "pool", "noise", "none")
            if candidates[:, kinds == kind].any()
        } | {"all": float(values[candidates].mean())}
    return means


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """A field of the record of an epoch, and how its panel shows it.

    Attributes:
      field: the name in the record; the value is a number, or a number for each cell type.
      title: of the panel; diagnostics of one title share it.
      label: of the panel's vertical axis, with the unit.
      measure: (space, activation probabilities f32[edges, ops] per cell type, derived genotype) -> value. None: the
        search itself puts the field into the record, since it needs the weights or the data.
      legend: the name of the line, if the value is a number and its panel has several.
      limits: of the vertical axis; None: they fit the values.
      whole: whether the vertical axis has ticks at whole numbers only.
    """

    field: str
    title: str
    label: str
    measure: Callable[[SearchSpace, Mapping[str, np.ndarray], genotypes.AnyGenotype], Any] | None = None
    legend: str = ""
    limits: tuple[float, float] | None = None
    whole: bool = False


DIAGNOSTICS = (
    Diagnostic(
        "entropy", "entropy", "mean of the edges (nats)", lambda space, activation, genotype: entropy(activation)
    ),
    Diagnostic(
        "skip_share",
        "skip connections",
        "share in the derived cells",
        lambda space, activation, genotype: genotypes.skip_share(genotype),
        limits=(0, 1),
    ),
    Diagnostic(
        "depth",
        "depth",
        "connections in the derived cells",
        lambda space, activation, genotype: genotypes.depth(genotype),
        whole=True,
    ),
    Diagnostic("alignment_val", "alignment of the layers", "agreement of gradients", legend="validation"),
    Diagnostic("alignment_train", "alignment of the layers", "agreement of gradients", legend="training"),
    Diagnostic("eigenvalue", "dominant eigenvalue", "Hessian of the validation loss"),
    Diagnostic("cost", "cost", "of the derived cell's network", legend="derived"),
    Diagnostic("expected_cost", "cost", "of the derived cell's network", legend="expected"),
)

# The fields of an epoch's record beside the metrics of the steps.
RECORD_FIELDS = frozenset(
    {"epoch", "step", "seconds", "genotype", "activation", "benchmark", "eigenvalue"}
    | {diagnostic.field for diagnostic in DIAGNOSTICS if diagnostic.measure}
)


def measure_all(
    space: SearchSpace, probabilities: Mapping[str, np.ndarray], genotype: genotypes.AnyGenotype
) -> dict[str, Any]:
    """{field: value} for each of DIAGNOSTICS that has a `measure`; for the arguments see `Diagnostic`."""
    return {d.field: d.measure(space, probabilities, genotype) for d in DIAGNOSTICS if d.measure}
