"""A limit for the cost of the found cell."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.fields import above, checked
from prdarts_jax.nets.costs import Costs
from prdarts_jax.refusals import shown
from prdarts_jax.search import gates
from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.search.terms.base import View
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class expected_cost:
    """The term weight * max(cost / target - 1, 0), with the cost of the network of the derived cell.

    As in TuNAS (Bender et al., CVPR 2020, section 3.2) it is linear in the cost, but it only limits costs from above.
    The cost of the derived cell has no gradient, so above the target the term has the gradient of the expected cost:
    that of a cell whose nodes draw each entry, or whose edges draw their op, in proportion to the activation. The
    metrics are `cost`, that of the derived cell, and `expected_cost`, both in the unit of the costs.

    Attributes:
      weight: of the excess.
      target: largest cost, in the unit of the costs.
      costs: of the networks of all cells, in the unit of their kind; see `nets/costs.py`.
      distinct_inputs: the same as in the method's `discretizations.strongest`.
      scores: `(space, logits) -> scores`, by which the cell is derived: `scores` of the method's relaxation; by default
        the activation is used.

    Raises:
      ValueError: an argument is out of range, or, when the term is called, the search is in a space with other edges,
        ops or cell types than the space of the costs.

    >>> from prdarts_jax import spaces
    >>> from prdarts_jax.nets import costs
    >>> term = expected_cost(10.0, 30e6, costs.of_network(spaces.nas_bench_201()))
    """

    weight: float
    target: Annotated[float, above(0)]
    costs: Costs
    _: dataclasses.KW_ONLY
    distinct_inputs: bool = True
    scores: Callable[[SearchSpace, Arch], Arch] | None = None

    def __call__(self, view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The term, and the metrics."""
        for field in ("ops", "nodes", "inputs", "cell_types"):
            found, expected = getattr(self.costs.space, field), getattr(view.space, field)
            if found != expected:
                raise ValueError(
                    f"costs.space.{field}={shown(found)} must be {shown(expected)}, as in the space of the search"
                )
        derived = expected = jnp.float32(self.costs.fixed / self.target)
        scores = self.scores(view.space, view.logits) if self.scores else view.activation
        for cell_type, array in self.costs.arrays().items():
            cost = jnp.asarray(array / self.target, jnp.float32)
            activation = jnp.where(view.candidates[cell_type], view.activation[cell_type], 0.0)
            if view.space.entries_per_node:
                activation = activation * gates.computes(view.space)
            score = jnp.where(view.candidates[cell_type], scores[cell_type], -jnp.inf)
            derived += jnp.sum(cost * gates.strongest_ops(view.space, score, self.distinct_inputs))
            expected += _expected(view.space, activation, cost)
        excess = jax.lax.stop_gradient(jnp.maximum(derived - 1.0, 0.0))
        slope = (excess > 0) * (expected - jax.lax.stop_gradient(expected))
        metrics = {"cost": derived * self.target, "expected_cost": expected * self.target}
        return self.weight * (excess + slope), metrics


def _expected(space, activation, cost):
    """The expected cost of a cell whose nodes draw their entries, or whose edges draw their ops, in proportion to the
    activation."""
    total, weighted = jnp.sum(activation, axis=1), jnp.sum(activation * cost, axis=1)
    if space.entries_per_node:
        into = gates.edges_into(space)
        total, weighted = into @ total, space.entries_per_node * (into @ weighted)
    return jnp.sum(weighted / jnp.where(total > 0, total, 1.0))
