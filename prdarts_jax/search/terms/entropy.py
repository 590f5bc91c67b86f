"""The entropy of the ops of an edge."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.terms.base import CellTerm


@checked
def entropy(weight: float) -> CellTerm:
    """The mean over the edges of the entropy of an edge's activation, divided by its sum, in nats.

    With a positive weight the logits prefer clear decisions, as in FX-DARTS (Rao et al., 2025), whose supernet loses
    ops in this way; with a negative weight they keep all ops in play. The metric is `l_entropy`.

    Args:
      weight: of the entropy.
    """
    return _Entropy(weight, "l_entropy")


@dataclasses.dataclass(frozen=True)
class _Entropy(CellTerm):
    def of_cell(self, space, probability, weights, candidates):
        total = jnp.sum(jnp.where(candidates, probability, 0.0), axis=1, keepdims=True)
        share = probability / jnp.where(total > 0, total, 1.0)
        # The derivative of entr is infinite at 0, the probability of an op that is no candidate.
        counted = candidates & (share > 0)
        return jnp.mean(
            jnp.sum(jnp.where(counted, jax.scipy.special.entr(jnp.where(counted, share, 1.0)), 0.0), axis=1)
        )
