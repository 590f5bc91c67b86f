"""What a term sees, the sum of terms, and the base of those that are a mean over cells."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.refusals import cut, shown
from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.spaces import SearchSpace, own


class View(NamedTuple):
    """The part of a search that a term sees.

    An op that is no candidate of its edge has the logit -inf and the activation 0. Leave such ops out (see
    `candidates`) before you take a logarithm or a root, whose derivatives are not finite there.

    Attributes:
      space: the search space, which names the edges and ops.
      logits: of the relaxation.
      activation: the probability or strength with which each op takes part.
      val_loss: the validation loss, f32[], without a gradient.
    """

    space: SearchSpace
    logits: Arch
    activation: Arch
    val_loss: jax.Array

    @property
    def candidates(self) -> Arch:
        """Which ops are candidates of which edge, bool[edges, ops] for each cell type."""
        return {t: jnp.isfinite(self.logits[t]) for t in self.space.cell_types}


Term = Callable[[View, Arch, jax.Array], tuple[jax.Array, Metrics]]


def total(terms: Sequence[Term], view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """The sum of the terms, f32[], and all their metrics.

    Raises:
      ValueError: a term raises an error, which is then its cause, a term returns anything but a scalar and a dict, or
        two terms have a metric of the same name.
    """
    found = [_result(term, view, op_weights, progress) for term in terms]
    value = sum((value for value, _ in found), jnp.float32(0))
    return value, union(*(metrics for _, metrics in found))


def union(*parts: Metrics) -> Metrics:
    """The metrics that parts of a step report, together.

    Raises:
      ValueError: two parts have a metric of the same name.
    """
    names = [name for part in parts for name in part]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"terms must report metrics of different names, but {', '.join(sorted(twice))} comes twice")
    return {name: metric for part in parts for name, metric in part.items()}


@dataclasses.dataclass(frozen=True)
class CellTerm:
    """The base of terms that are a mean over the cell types.

    A subclass defines `of_cell`, the value of one cell. It may define `added`, which turns the mean of these values
    over the cell types into the term; by default that is `weight` times the mean.

    Attributes:
      weight: of the term.
      name: of the metric as which the mean is reported.
    """

    weight: float
    name: str

    def of_cell(
        self, space: SearchSpace, probability: jax.Array, weights: jax.Array, candidates: jax.Array
    ) -> jax.Array:
        """The value of one cell, f32[].

        Args:
          space: the search space, which names the edges and ops.
          probability: the probability or strength of each op (`View.activation`), f32[edges, ops].
          weights: op weights of this step, f32[edges, ops].
          candidates: which ops are candidates of which edge, bool[edges, ops].
        """
        raise NotImplementedError(f"{type(self).__name__} must define of_cell, its value for one cell")

    def __call__(self, view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The weighted term, and the metric."""
        values = [
            self.of_cell(view.space, view.activation[t], op_weights[t], view.candidates[t])
            for t in view.space.cell_types
        ]
        mean: jax.Array = sum(values) / len(values)  # type: ignore[assignment]
        return self.added(mean), {self.name: mean}

    def added(self, mean: jax.Array) -> jax.Array:
        """The term, f32[], for this mean over the cell types: here `weight` times the mean."""
        return self.weight * mean


def mean_of(values, counted):
    """The mean of the counted values, 0 if none is counted."""
    return jnp.sum(values * counted) / jnp.maximum(jnp.sum(counted), 1)


def _result(term, view, op_weights, progress):
    """What a term returns, after a check."""
    name = getattr(term, "__name__", type(term).__name__)
    try:
        result = term(view, op_weights, progress)
    except Exception as error:  # a term of the user's own may raise anything
        if place := own.place_of(error):
            reason = cut(f"{type(error).__name__}: {error}", 400)
            raise ValueError(f"term {name} in {place} raised {reason}") from error
        raise
    if not (isinstance(result, tuple) and len(result) == 2 and _is_number(result[0]) and isinstance(result[1], dict)):
        raise ValueError(f"term {name} must return (scalar, dict of metrics), not {shown(result)}")
    for metric, value in result[1].items():
        if not isinstance(metric, str) or not _is_number(value):
            raise ValueError(f"term {name} must report scalars by name, not {shown({metric: value})}")
    return result


def _is_number(value):
    """Whether a value is a real number, as an array or not."""
    kinds = (bool, int, float, np.generic, np.ndarray, jax.Array)
    return isinstance(value, kinds) and np.ndim(value) == 0 and not np.iscomplexobj(value)
