"""Terms: functions that a method adds to the validation loss, which the logits minimise.

A term is a frozen, hashable object or a plain function, called as `(view, op_weights, progress) -> (scalar, metrics)`.
`progress` is the fraction of the search done, f32[] in [0, 1]. Arrays are {cell type: f32[edges, ops]} in the order of
`space.edges` and `space.ops`.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prdarts_jax.nets.costs import Costs
from prdarts_jax.search import gates
from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.spaces import SearchSpace


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

# The metrics that a search step reports without any term.
STEP_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "alignment_val", "alignment_train")


def total(terms: Sequence[Term], view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """The sum of the terms, f32[], and all their metrics.

    Raises:
      ValueError: a term returns anything but a scalar and a dict, two terms have a metric of the same name, or a metric
        has the name of one that the step itself reports.
    """
    found = [term(view, op_weights, progress) for term in terms]
    names = [*STEP_METRICS, *(name for result in found for name in _metrics(result))]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"terms must report metrics of different names, but {', '.join(sorted(twice))} comes twice")
    value = sum((value for value, _ in found), jnp.float32(0))
    return value, functools.reduce(operator.or_, (metrics for _, metrics in found), {})


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


def group_sparsity(weight: float, metric: str, *groups: str, chosen: bool = False, threshold: float = 0.0) -> CellTerm:
    """The term weight * max(m - threshold, 0), with m the mean of P(gate != 0) over edges and the ops of some groups.

    Args:
      weight: lambda.
      metric: the name under which m is reported.
      groups: of the ops over which the mean is taken.
      chosen: False: the mean is over the candidates. True: it is over the ops that the step executes, those of nonzero
        weight, as in PR-DARTS's code. If there is none, m is 0.
      threshold: 0 in the paper, above 0 in PR-DARTS's code.
    """
    return _GroupSparsity(weight, metric, groups, chosen, threshold)


def skip_sparsity(weight: float, *, chosen: bool = False, threshold: float = 0.0) -> CellTerm:
    """PR-DARTS's L_skip: `group_sparsity` of the group 'skip' (Zhou et al., 2020, section 4.2); weight is lambda1.

    >>> skip_sparsity(0.01).name
    'l_skip'
    """
    return _GroupSparsity(weight, "l_skip", ("skip",), chosen, threshold)


def nonskip_sparsity(weight: float) -> CellTerm:
    """PR-DARTS's L_nonskip: `group_sparsity` of all other groups, 'none' too (section 4.2); weight is lambda2."""
    return _GroupSparsity(weight, "l_nonskip", ("none", "noise", "conv", "pool"))


@dataclasses.dataclass(frozen=True)
class _GroupSparsity(CellTerm):
    groups: tuple[str, ...]
    chosen: bool = False
    threshold: float = 0.0

    def of_cell(self, space, probability, weights, candidates):
        columns = jnp.array(space.op_indices(*self.groups), jnp.int32)
        counted = (weights != 0 if self.chosen else candidates)[:, columns]
        return _mean(probability[:, columns], counted)

    def added(self, mean):
        return self.weight * jnp.maximum(mean - self.threshold, 0.0)


def path_depth(weight: float, *, chosen: bool = False) -> CellTerm:
    """PR-DARTS's reward -lambda3 L_path for depth (Zhou et al., 2020, section 4.3).

    L_path is the product over the chain 1 -> 2 -> ... -> h-1 of the sum over the parameterised ops of P(gate != 0).

    Args:
      weight: lambda3.
      chosen: as in the authors' code, replace the sum by the mean of P(gate != 0) over the parameterised ops that the
        step executes. The product is then over the edges that have such an op; L_path is 0 if no edge has one.
    """
    return _PathDepth(weight, "l_path", chosen)


@dataclasses.dataclass(frozen=True)
class _PathDepth(CellTerm):
    chosen: bool

    def of_cell(self, space, probability, weights, candidates):
        chain = jnp.array([space.edges.index((t - 1, t)) for t in range(space.inputs, space.nodes)])[:, None]
        columns = jnp.array(space.op_indices("conv"), jnp.int32)
        if not self.chosen:
            return jnp.prod(jnp.sum(probability[chain, columns], axis=1))
        mask = (weights != 0)[chain, columns]
        count = jnp.sum(mask, axis=1)
        mean = jnp.sum(probability[chain, columns] * mask, axis=1) / jnp.maximum(count, 1)
        return jnp.any(mask) * jnp.prod(jnp.where(count > 0, mean, 1.0))

    def added(self, mean):
        return -self.weight * mean


def zero_one(weight: float) -> CellTerm:
    """Fair DARTS's L_0-1: minus the mean of (activation - 1/2)^2 (Chu et al., 2020, equation 8); weight is w01."""
    return _ZeroOne(weight, "l_01")


@dataclasses.dataclass(frozen=True)
class _ZeroOne(CellTerm):
    def of_cell(self, space, probability, weights, candidates):
        return -_mean(jnp.square(probability - 0.5), candidates)


def expected_cost(
    weight: float,
    target: float,
    costs: Costs,
    *,
    distinct_inputs: bool = True,
    scores: Callable[[SearchSpace, Arch], Arch] | None = None,
) -> Term:
    """The term weight * max(cost / target - 1, 0), with the cost of the network of the derived cell.

    As in TuNAS (Bender et al., CVPR 2020, section 3.2) it is linear in the cost, but it only limits costs from above.
    The cost of the derived cell has no gradient, so above the target the term has the gradient of the expected cost:
    that of a cell whose nodes draw each entry, or whose edges draw their op, in proportion to the activation. The
    metrics are `cost`, that of the derived cell, and `expected_cost`, both in the unit of the costs.

    Args:
      weight: of the excess.
      target: largest cost, in the unit of the costs.
      costs: of the networks of all cells, in the unit of their kind; see `nets/costs.py`.
      distinct_inputs: the same as in the method's `discretizations.strongest`.
      scores: `(space, logits) -> scores`, by which the cell is derived: `scores` of the method's relaxation; by default
        the activation is used.

    >>> from prdarts_jax import spaces
    >>> from prdarts_jax.nets import costs
    >>> term = expected_cost(10.0, 30e6, costs.of_network(spaces.nas_bench_201()))
    """
    return _ExpectedCost(weight, target, costs, distinct_inputs, scores)


@dataclasses.dataclass(frozen=True)
class _ExpectedCost:
    weight: float
    target: float
    costs: Costs
    distinct_inputs: bool
    scores: Callable[[SearchSpace, Arch], Arch] | None

    def __call__(self, view, op_weights, progress):
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


def score_function(view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """A term: the surrogate loss of REINFORCE (Williams, 1992), for op weights drawn by `relaxations.Policy`.

    Its gradient in the logits is (L_val - baseline) d log p(op weights), whose expectation is the gradient of the
    expected L_val. Its gradient in the baseline is that of (L_val - baseline)^2 / 2. The metric is `baseline`.
    """
    baseline = view.logits["baseline"]
    error = view.val_loss - baseline
    chosen = {t: jnp.where(w > 0, jax.nn.log_softmax(view.logits[t]), 0.0) for t, w in op_weights.items()}
    log_probability = sum(jnp.sum(terms) for terms in chosen.values())
    surrogate = jax.lax.stop_gradient(error) * log_probability + jnp.square(error) / 2
    return surrogate, {"baseline": baseline}


def _metrics(result):
    """The metrics in the result of a term."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)) or jnp.ndim(result[0]):
        raise ValueError(f"a term must return (scalar, dict of metrics), not {result!r:.100}")
    for name, value in result[1].items():
        if jnp.ndim(value):
            raise ValueError(f"the metric {name!r} of a term must be a scalar, but has the shape {jnp.shape(value)}")
    return result[1]


def _mean(values, counted):
    """The mean of the counted values, 0 if none is counted."""
    return jnp.sum(values * counted) / jnp.maximum(jnp.sum(counted), 1)
