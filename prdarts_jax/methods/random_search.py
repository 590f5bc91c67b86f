"""Random search with weight sharing (Li, Talwalkar, Random Search and Reproducibility for NAS, UAI 2019)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax import gates
from prdarts_jax.methods.base import Arch, Method
from prdarts_jax.spaces import SearchSpace, darts


@dataclasses.dataclass(frozen=True)
class RandomSearch(Method):
    """Every step trains the weights of one cell drawn uniformly; of `samples` drawn cells the best is kept.

    Attributes:
      samples: cells that are compared after each epoch, by the validation loss with the shared weights.
      space: what is drawn from.
    """

    samples: int = 100
    space: SearchSpace = darts()

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """A uniformly drawn cell of each type, its ops of weight 1."""
        keys = jax.random.split(key, len(logits))
        return {
            t: gates.choose_cell(k, self.space, jnp.isfinite(logits[t])).astype(jnp.float32)
            for k, t in zip(keys, sorted(logits), strict=True)
        }

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """1 for each op of the best cell so far, which is what the logits are after the first epoch."""
        return {t: (beta > 0.5).astype(jnp.float32) for t, beta in logits.items()}
