"""A REINFORCE controller (Williams, 1992; Zoph, Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017),
whose policy is the softmax of each edge."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.search import gates
from prdarts_jax.search.methods.base import Arch, Method, keys
from prdarts_jax.spaces import SearchSpace
from prdarts_jax.spaces.genotypes import AnyGenotype

BASELINE = "baseline"  # beside the logits: what the loss is compared with, f32[]


@dataclasses.dataclass(frozen=True)
class Reinforce(Method):
    """One op of every edge is drawn; the logits follow the score function's estimate of the expected loss's gradient.

    Attributes:
      start_baseline: the loss expected at first; then the baseline follows the losses, as the logits' optimizer lets
        it.
    """

    start_baseline: float = 2.3

    def init(self, key: jax.Array, logits: Arch) -> Arch:
        """1e-3 N(0, 1), and the baseline."""
        return super().init(key, logits) | {BASELINE: jnp.float32(self.start_baseline)}

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Exactly 1 for one op of each edge, drawn by the softmax; no gradient."""
        policy = _policy(logits)
        return {
            t: jax.nn.one_hot(jax.random.categorical(k, policy[t]), policy[t].shape[-1])
            for t, k in keys(key, policy).items()
        }

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A surrogate whose gradient in the logits is (L_val - baseline) d log p(op_weights), in expectation that of
        the expected L_val; and for the baseline the square of its error."""
        error = jax.lax.stop_gradient(val_loss) - logits[BASELINE]
        chosen = {t: jnp.where(w > 0, jax.nn.log_softmax(logits[t]), 0.0) for t, w in op_weights.items()}
        log_probability = sum(jnp.sum(terms) for terms in chosen.values())
        surrogate = jax.lax.stop_gradient(error) * log_probability + jnp.square(error) / 2
        return val_loss + surrogate, {"baseline": logits[BASELINE]}

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """The policy: the probability of each op."""
        return gates.softmax(_policy(logits))

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """As DARTS, by the policy."""
        return super().derive(space, _policy(logits))


def _policy(logits: Arch) -> Arch:
    return {t: beta for t, beta in logits.items() if t != BASELINE}
