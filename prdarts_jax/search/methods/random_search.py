"""Random search with weight sharing (Li, Talwalkar, Random Search and Reproducibility for NAS, UAI 2019)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.search import gates
from prdarts_jax.search.methods.base import Arch, Method, keys
from prdarts_jax.spaces import SearchSpace, darts, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype


@dataclasses.dataclass(frozen=True)
class RandomSearch(Method):
    """Every step trains the weights of one cell drawn uniformly; after an epoch the best of `samples` is what it found.

    Attributes:
      samples: cells that are compared after each epoch, by the validation loss with the shared weights.
      space: what is drawn from.
    """

    samples: int = 100
    space: SearchSpace = darts()

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """A uniformly drawn cell of each type, its ops of weight 1."""
        return {
            t: gates.choose_cell(k, self.space, jnp.isfinite(logits[t])).astype(jnp.float32)
            for t, k in keys(key, logits).items()
        }

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """1 for each op of the best cell of the last epoch's, which is what the logits are after it."""
        return {t: (beta > 0.5).astype(jnp.float32) for t, beta in logits.items()}

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """That cell."""
        return discretizations.strongest(distinct_inputs=True)(space, logits)
