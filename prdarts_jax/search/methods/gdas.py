"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong, Yang, CVPR 2019)."""

import dataclasses

import jax

from prdarts_jax.search import gates
from prdarts_jax.search.methods.base import Arch, Method, keys


@dataclasses.dataclass(frozen=True)
class Gdas(Method):
    """One op of every edge, drawn by its softmax, with the gradient of the Gumbel softmax (straight-through).

    Attributes:
      start_temperature: tau at the start; it falls linearly.
      end_temperature: tau at the end.
    """

    start_temperature: float = 10.0
    end_temperature: float = 0.1

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equations 3 to 5: exactly 1 for the drawn op of each edge."""
        tau = self.start_temperature + (self.end_temperature - self.start_temperature) * progress

        def draw(key, beta):
            soft = jax.nn.softmax((beta + jax.random.gumbel(key, beta.shape)) / tau)
            return gates.straight_through(gates.largest(soft, 1), soft)

        return {t: draw(k, logits[t]) for t, k in keys(key, logits).items()}
