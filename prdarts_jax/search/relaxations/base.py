"""The base of all relaxations."""

import dataclasses
from typing import Annotated

import jax

from prdarts_jax.fields import at_least, checked
from prdarts_jax.spaces import SearchSpace

Arch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def keys(key: jax.Array, logits: Arch) -> dict[str, jax.Array]:
    """A separate key for each entry of the logits; consumes `key`."""
    return dict(zip(sorted(logits), jax.random.split(key, len(logits)), strict=True))


@checked
@dataclasses.dataclass(frozen=True)
class Relaxation:
    """The base of all relaxations: logits start at `initial` + `noise` N(0, 1), and ops are ranked by their logits.

    A subclass defines `activation`. It also defines `weigh` if the activation is not the weight with which ops run, and
    `scores` if the ops of different edges should not be compared by their logits.
    """

    initial: float = 0.0
    noise: Annotated[float, at_least(0)] = 1e-3

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """The initial logits, with the shapes and dtypes of `logits`, whose values do not matter: `init_search` sets
        the logits of ops that are no candidates to -inf afterwards."""
        return {
            t: self.initial + self.noise * jax.random.normal(k, logits[t].shape, logits[t].dtype)
            for t, k in keys(key, logits).items()
        }

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass, by default the activation; an op of weight 0 is not executed."""
        return self.activation(space, logits, progress)

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The probability or strength with which each op takes part, in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define activation, how strongly each op takes part")

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The scores by which a discretization ranks the ops of a node: here the logits."""
        return logits

    def metrics(self, progress: jax.Array) -> Metrics:
        """Scalars to report at each step; here there are none."""
        return {}
