"""The Gumbel softmax, with all ops (SNAS) or with the drawn op alone (GDAS)."""

import dataclasses
from typing import Annotated

import jax

from prdarts_jax.fields import above, checked
from prdarts_jax.search import gates
from prdarts_jax.search.relaxations.base import Arch, Metrics, keys
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class Concrete(Softmax):
    """The Gumbel softmax over the ops of each edge at `temperature` (SNAS; Xie et al., ICLR 2019, equation 6). Every op
    runs."""

    temperature: Annotated[Linear, above(0)] = Linear(1.0, 0.33)

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """The softmax of the logits with Gumbel noise, divided by the temperature."""
        tau = self.temperature(progress)
        return {
            t: jax.nn.softmax((logits[t] + jax.random.gumbel(k, logits[t].shape)) / tau)
            for t, k in keys(key, logits).items()
        }

    def metrics(self, progress: jax.Array) -> Metrics:
        """`temperature`."""
        return {"temperature": self.temperature(progress)}


@checked
@dataclasses.dataclass(frozen=True)
class Gumbel(Concrete):
    """One op of every edge, drawn by the softmax, with the gradient of the Gumbel softmax at `temperature` (GDAS; Dong,
    Yang, 2019)."""

    temperature: Annotated[Linear, above(0)] = Linear(10.0, 0.1)

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equations 3 to 5: exactly 1 for the drawn op of each edge (straight-through)."""
        drawn = super().weigh(space, logits, key, progress)
        return {t: gates.straight_through(gates.largest(soft, 1), soft) for t, soft in drawn.items()}
