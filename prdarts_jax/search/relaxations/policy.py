"""One op of each edge, drawn without a gradient (REINFORCE)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations.base import Arch, keys
from prdarts_jax.search.relaxations.softmax import Softmax
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class Policy(Softmax):
    """One op of every edge, drawn by the softmax, without a gradient (REINFORCE; Zoph, Le, 2017).

    Beside the logits `baseline` f32[] is trained, with which the loss is compared (see `terms.score_function`).

    Attributes:
      baseline: its initial value, the loss to be expected at the start of a search.
    """

    baseline: float = 2.3

    def init(self, space: SearchSpace, key: jax.Array, logits: Arch) -> Arch:
        """The logits and the baseline."""
        return super().init(space, key, logits) | {"baseline": jnp.float32(self.baseline)}

    def weigh(self, space: SearchSpace, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Exactly 1 for one op of each edge."""
        policy = {t: logits[t] for t in space.cell_types}
        return {
            t: jax.nn.one_hot(jax.random.categorical(k, policy[t]), policy[t].shape[-1])
            for t, k in keys(key, policy).items()
        }
