"""One op of each edge, with a gradient of second order accuracy (ReinMax)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations.base import Arch, keys
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.spaces import SearchSpace

# The weight of an op that is not drawn. It must run, since the gradient needs its output, and a weight of 0 would
# leave it out; in the output of its node it vanishes.
_NEARLY_0 = 1e-30


@checked
@dataclasses.dataclass(frozen=True)
class ReinMax(Softmax):
    """One op of every edge, drawn by the softmax, with the gradient of ReinMax (Liu et al., Bridging Discrete and
    Backpropagation, NeurIPS 2023, Algorithm 2, with the temperature 1).

    Its expectation is the gradient of the expected loss if the loss is quadratic in the op weights of an edge; that of
    the straight-through gradient of the softmax is so only if the loss is linear. All ops run, as with a softmax.
    """

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Exactly 1 for the drawn op of each edge, and 1e-30 for the other candidates."""
        return {t: _draw(k, logits[t]) for t, k in keys(key, {t: logits[t] for t in space.cell_types}).items()}


def _draw(key, beta):
    candidates, beta = jnp.isfinite(beta), jnp.maximum(beta, jnp.finfo(beta.dtype).min / 2)
    drawn = jax.nn.one_hot(jax.random.categorical(key, beta), beta.shape[-1])
    first = jax.nn.softmax(beta)
    middle = (drawn + first) / 2
    # This softmax has the value of `middle`, and its derivative is the one at that value.
    middle = jax.nn.softmax(jax.lax.stop_gradient(jnp.log(middle) - beta) + beta)
    soft = 2 * middle - first / 2
    weights = jnp.maximum(drawn, _NEARLY_0) + (soft - jax.lax.stop_gradient(soft))
    return jnp.where(candidates, weights, 0.0)
