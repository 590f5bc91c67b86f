"""Hard-concrete gates (PR-DARTS)."""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from prdarts_jax.fields import above, checked, from_to
from prdarts_jax.search import gates
from prdarts_jax.search.relaxations.base import Arch, Metrics, Relaxation, keys
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class HardConcrete(Relaxation):
    """Independent hard-concrete gates, of which two run on each edge (PR-DARTS; Zhou et al., 2020, equation 7).

    Attributes:
      temperature: tau, a schedule that falls from 10 to 0.1 by default.
      draw: which two ops of an edge run. 'uniform', as in the paper: two that are drawn uniformly; their weights are
        their gates. 'largest', as in the authors' code: those with the largest gates after some gates have been dropped
        at random; their weights are exactly 1 with the gradient of the gates (straight-through).
      drop: for 'largest', the probability that a gate is dropped; see `gates.choose_largest`.
    """

    temperature: Annotated[Linear, above(0)] = Linear(10.0, 0.1)
    draw: Literal["uniform", "largest"] = "uniform"
    drop: Annotated[float, from_to(0, 1)] = 0.4

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """One draw of the gates; all but two candidates of every edge get the weight 0."""
        tau = self.temperature(progress)
        return {t: self._draw(k, logits[t], tau) for t, k in keys(key, logits).items()}

    def _draw(self, key, beta, temperature):
        key_gates, key_choice = jax.random.split(key)
        drawn = gates.hard_concrete(key_gates, beta, temperature)
        candidates = jnp.isfinite(beta)
        if self.draw == "uniform":
            return jnp.where(gates.choose_random(key_choice, candidates), drawn, 0.0)
        return gates.straight_through(gates.choose_largest(key_choice, drawn, candidates, self.drop), drawn)

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """P(g != 0), Theorem 3 of the paper."""
        tau = self.temperature(progress)
        return {t: gates.activation_probability(beta, tau) for t, beta in logits.items()}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The logits, which have the order of P(g != 0); with `draw='largest'` their log-softmax on each edge."""
        return logits if self.draw == "uniform" else Softmax().scores(space, logits)

    def metrics(self, progress: jax.Array) -> Metrics:
        """`temperature`."""
        return {"temperature": self.temperature(progress)}
