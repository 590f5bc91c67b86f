"""Op weights drawn from a Dirichlet distribution (DrNAS)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations.base import Arch, keys
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class Dirichlet(Softmax):
    """Op weights of an edge drawn from Dir(elu(beta) + 1), with the derivative of the draw in its concentration (DrNAS;
    Chen et al., ICLR 2021, section 3.1). Every op runs.

    Ops are ranked by the softmax of the logits, as in the authors' code.
    """

    def concentration(self, space: SearchSpace, logits: Arch) -> Arch:
        """elu(beta) + 1, which is 1 for logits of 0; 0 for ops that are no candidates."""
        beta = {t: logits[t] for t in space.cell_types}
        return {t: jnp.where(b > 0, b + 1, jnp.exp(jnp.where(b > 0, 0.0, b))) for t, b in beta.items()}

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """A draw, whose ops add up to 1 on each edge."""
        concentration = self.concentration(space, logits)

        def draw(key, of_type):
            candidates = of_type > 0
            gammas = jax.random.loggamma(key, jnp.where(candidates, of_type, 1.0))
            return jax.nn.softmax(jnp.where(candidates, gammas, -jnp.inf))

        return {t: draw(k, concentration[t]) for t, k in keys(key, concentration).items()}

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The mean of the distribution."""
        return {t: c / jnp.sum(c, axis=-1, keepdims=True) for t, c in self.concentration(space, logits).items()}
