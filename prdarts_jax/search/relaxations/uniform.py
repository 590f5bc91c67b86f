"""A cell drawn uniformly (random search)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search import gates
from prdarts_jax.search.relaxations.base import Arch, Relaxation, keys
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class Uniform(Relaxation):
    """A cell drawn uniformly, whose ops have the weight 1 (Li, Talwalkar, 2019).

    `selection.BestOf` sets the logits: 1 for the ops of the best of the cells drawn after the last epoch, 0 for the
    others.
    """

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """A uniformly drawn cell of each type."""
        return {
            t: gates.choose_cell(k, space, jnp.isfinite(logits[t])).astype(jnp.float32)
            for t, k in keys(key, logits).items()
        }

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """1 for each op of the cell that `BestOf` chose after the last epoch, else 0; all are 0 before the first."""
        return {t: (beta > 0.5).astype(jnp.float32) for t, beta in logits.items()}
