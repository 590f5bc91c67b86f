"""Terms: what a method adds to the validation loss that the logits minimise.

A term is a frozen, hashable value called as `(view, op_weights, progress) -> (scalar, metrics)`; a plain function of
these arguments is one too. `progress` is the fraction of the search done, f32[] in [0, 1]. Arrays are
{cell type: f32[edges, ops]} in the order of `space.edges` and `space.ops`.
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
    """What a term sees of a search.

    An op that is no candidate of its edge has the logit -inf and the activation 0. Leave it out (`candidates`) before
    a logarithm or a root, whose derivatives are not finite there.

    Attributes:
      space: names the edges and ops.
      logits: of the relaxation.
      activation: how likely, or how strongly, each op takes part.
      val_loss: the validation loss, f32[], a constant for derivatives.
    """

    space: SearchSpace
    logits: Arch
    activation: Arch
    val_loss: jax.Array

    @property
    def candidates(self) -> Arch:
        """Which ops there are on an edge, bool[edges, ops] for each cell type."""
        return {t: jnp.isfinite(self.logits[t]) for t in self.space.cell_types}


Term = Callable[[View, Arch, jax.Array], tuple[jax.Array, Metrics]]

# What a search step reports by itself.
STEP_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "alignment_val", "alignment_train")


def total(terms: Sequence[Term], view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """The sum of the terms, f32[], and all their metrics.

    Raises:
      ValueError: a term gives anything but a scalar and a dict, or two give a metric of one name, or one a metric that
        the step itself has.
    """
    found = [term(view, op_weights, progress) for term in terms]
    names = [*STEP_METRICS, *(name for result in found for name in _metrics(result))]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"terms must report metrics of different names, but {', '.join(sorted(twice))} comes twice")
    value = sum((value for value, _ in found), jnp.float32(0))
    return value, functools.reduce(operator.or_, (metrics for _, metrics in found), {})


@dataclasses.dataclass(frozen=True)
class CellTerm:
    """The base of terms that are a mean over the cell types; that mean is reported as the metric `name`.

    A subclass defines `of_cell`, the value of one cell, and may define `added`, what the mean adds to the loss.
    """

    weight: float
    name: str

    def of_cell(
        self, space: SearchSpace, probability: jax.Array, weights: jax.Array, candidates: jax.Array
    ) -> jax.Array:
        """The value of one cell, f32[].

        Args:
          space: names the edges and ops.
          probability: how likely, or how strongly, each op takes part (`View.activation`), f32[edges, ops].
          weights: op weights of this step, f32[edges, ops].
          candidates: which ops there are, bool[edges, ops].
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
        """What is added to the loss."""
        return self.weight * mean


def group_sparsity(weight: float, metric: str, *groups: str, chosen: bool = False, threshold: float = 0.0) -> CellTerm:
    """Mean over edges and the ops of some groups of P(gate != 0), 0 if nothing counts.

    Args:
      weight: lambda.
      metric: the name it is reported by.
      groups: of the ops that count.
      chosen: as in PR-DARTS's code, count only the gates chosen in the draw, those of weight other than 0.
      threshold: as in PR-DARTS's code, it counts only above this.
    """
    return _GroupSparsity(weight, metric, groups, chosen, threshold)


def skip_sparsity(weight: float, *, chosen: bool = False, threshold: float = 0.0) -> CellTerm:
    """PR-DARTS's L_skip: `group_sparsity` of the skips (Zhou et al., 2020, section 4.2); weight is lambda1.

    >>> skip_sparsity(0.01).name
    'l_skip'
    """
    return _GroupSparsity(weight, "l_skip", ("skip",), chosen, threshold)


def nonskip_sparsity(weight: float) -> CellTerm:
    """PR-DARTS's L_nonskip: `group_sparsity` of all ops but skip (section 4.2); weight is lambda2."""
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
      chosen: as in the authors' code: the product over the edges of the chain that have a chosen parameterised op of
        the mean over those ops; 0 where no edge of the chain has one.
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
    """Fair DARTS's L_0-1: minus the mean of (sigmoid - 1/2)^2 (Chu et al., 2020, equation 8); weight is w01."""
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
    """What the network of the derived cell costs beyond a target, as a share of it; 0 where it is within the target.

    As in TuNAS (Bender et al., CVPR 2020, section 3.2) the excess counts linearly, |cost / target - 1|, but on one side
    only. The cost of the derived cell has no gradient; it has that of the expected cost, where a node draws each of its
    entries, or an edge its op, in proportion to their activation. Reported are `cost`, that of the derived cell, and
    `expected_cost`.

    Args:
      weight: of the excess.
      target: in the unit of the costs.
      costs: see `nets/costs.py`.
      distinct_inputs: as that of the method's `discretizations.strongest`.
      scores: `(space, logits) -> scores` by which the cell is derived, those of the method's relaxation; by default
        the activation.

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
    """Of a cell whose nodes draw their entries, or whose edges draw their ops, in proportion to the activation."""
    total, weighted = jnp.sum(activation, axis=1), jnp.sum(activation * cost, axis=1)
    if space.entries_per_node:
        into = gates.edges_into(space)
        total, weighted = into @ total, space.entries_per_node * (into @ weighted)
    return jnp.sum(weighted / jnp.where(total > 0, total, 1.0))


def score_function(view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
    """REINFORCE's surrogate (Williams, 1992), for op weights drawn by `relaxations.Policy`: itself a term.

    Its gradient in the logits is (L_val - baseline) d log p(op weights), in expectation that of the expected L_val; in
    the baseline it is that of half the square of the error.
    """
    baseline = view.logits["baseline"]
    error = view.val_loss - baseline
    chosen = {t: jnp.where(w > 0, jax.nn.log_softmax(view.logits[t]), 0.0) for t, w in op_weights.items()}
    log_probability = sum(jnp.sum(terms) for terms in chosen.values())
    surrogate = jax.lax.stop_gradient(error) * log_probability + jnp.square(error) / 2
    return surrogate, {"baseline": baseline}


def _metrics(result):
    """The metrics of what a term has given."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)) or jnp.ndim(result[0]):
        raise ValueError(f"a term must give (scalar, dict of metrics), not {result!r:.100}")
    for name, value in result[1].items():
        if jnp.ndim(value):
            raise ValueError(f"the metric {name!r} of a term must be a scalar, but has the shape {jnp.shape(value)}")
    return result[1]


def _mean(values, counted):
    """The mean of what is counted, 0 if nothing is."""
    return jnp.sum(values * counted) / jnp.maximum(jnp.sum(counted), 1)
