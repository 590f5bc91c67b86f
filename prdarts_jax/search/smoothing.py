"""Perturbations of the op weights with which the network's weights are updated (SDARTS; Chen, Hsieh, Stabilizing
Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020).

The weights then suit all op weights in a ball, which makes the validation loss smooth in the logits. Each perturbation
is a frozen, hashable dataclass, called as `(op_weights, gradient, key, progress) -> op weights`; `gradient` gives the
gradient of the training loss in op weights. Op weights are {cell type: f32[edges, ops]}.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked, from_to
from prdarts_jax.search.relaxations import Arch, keys
from prdarts_jax.search.schedules import Linear

_NEARLY_0 = 1e-30
Gradient = Callable[[Arch], Arch]
Smoothing = Callable[[Arch, Gradient, jax.Array, jax.Array], Arch]


@checked
@dataclasses.dataclass(frozen=True)
class RandomSmoothing:
    """SDARTS-RS: numbers drawn uniformly from [-radius, radius] are added to the op weights.

    Then weights below 0 become 0, and those of an edge are scaled to the sum that they had before. Ops that are not
    executed stay so.

    Attributes:
      radius: a schedule; in the authors' code it grows from 0.03 to 0.3.
    """

    radius: Annotated[Linear, at_least(0)] = Linear(0.03, 0.3)

    def __call__(self, op_weights: Arch, gradient: Gradient, key: jax.Array, progress: jax.Array) -> Arch:
        """The perturbed op weights; the gradient is not used."""
        return jax.tree.map(shifted, op_weights, _draw(key, op_weights, self.radius(progress)))


@checked
@dataclasses.dataclass(frozen=True)
class AdversarialSmoothing:
    """SDARTS-ADV: the numbers that are added to the op weights, as in `RandomSmoothing`, make the training loss large.

    From random numbers, the signs of the gradient in these numbers are followed for some steps of 2 radius / steps,
    each of which ends in [-radius, radius] (projected gradient ascent). The authors' code takes the gradient in the op
    weights instead, and so overlooks that they are scaled.

    Attributes:
      radius: as in `RandomSmoothing`.
      steps: number of steps; each costs a gradient.
    """

    radius: Annotated[Linear, at_least(0)] = Linear(0.03, 0.3)
    steps: Annotated[int, from_to(1, 1000)] = 7

    def __call__(self, op_weights: Arch, gradient: Gradient, key: jax.Array, progress: jax.Array) -> Arch:
        """The perturbed op weights."""
        radius = self.radius(progress)

        def ascend(_, shift):
            moved, pull_back = jax.vjp(lambda shift: jax.tree.map(shifted, op_weights, shift), shift)
            (slope,) = pull_back(gradient(jax.tree.map(_all_run, moved, op_weights)))
            step = 2 * radius / self.steps
            return jax.tree.map(lambda s, up: jnp.clip(s + step * jnp.sign(up), -radius, radius), shift, slope)

        shift = jax.lax.fori_loop(0, self.steps, ascend, _draw(key, op_weights, radius))
        return jax.tree.map(shifted, op_weights, shift)


def _draw(key, op_weights, radius):
    """Numbers drawn uniformly from [-radius, radius], with the shapes of the op weights."""
    return {
        t: jax.random.uniform(k, op_weights[t].shape, minval=-radius, maxval=radius)
        for t, k in keys(key, op_weights).items()
    }


def shifted(weights: jax.Array, shift: jax.Array) -> jax.Array:
    """The weights after a shift, both f32[edges, ops]: at least 0, and for each edge with the same sum as before.

    Weights of 0 stay 0. If all weights of an edge would become 0, they do not change.
    """
    # The derivative is the one without the maximum, so that an op can come back in an ascent.
    moved = jnp.where(weights != 0, weights + shift, 0.0)
    moved = jnp.where(moved > 0, moved, moved - jax.lax.stop_gradient(moved))
    total = jnp.sum(moved, axis=1, keepdims=True)
    scaled = moved * jnp.sum(weights, axis=1, keepdims=True) / jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, scaled, weights)


def _all_run(moved, weights):
    """The moved weights with hardly any weight, instead of none, for ops that ran before: only ops that run have a
    gradient."""
    return jnp.where((moved == 0) & (weights != 0), _NEARLY_0, moved)
