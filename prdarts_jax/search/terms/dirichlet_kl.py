"""How far a Dirichlet distribution is from the uniform one (DrNAS)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.relaxations import Arch, Dirichlet, Metrics
from prdarts_jax.search.terms.base import View


@checked
@dataclasses.dataclass(frozen=True)
class dirichlet_kl:
    """DrNAS's regulariser: KL(Dir(c) || Dir(1)), summed over edges and cell types, with c = elu(logits) + 1 (Chen et
    al., ICLR 2021, section 3.1). The metric is `l_kl`.

    It keeps the concentrations near 1, for which all op weights of an edge are equally likely. DrNAS's other
    regulariser is weight decay of the logits, `config.logits.weight_decay`.

    Attributes:
      weight: lambda.
    """

    weight: Annotated[float, at_least(0)]

    def __call__(self, view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The term, and the metric."""
        concentration = Dirichlet().concentration(view.space, view.logits)
        kl = jnp.float32(0)
        for t, counted in view.candidates.items():
            c = jnp.where(counted, concentration[t], 1.0)
            number, total = jnp.sum(counted, axis=1), jnp.sum(jnp.where(counted, c, 0.0), axis=1, keepdims=True)
            of_ops = jnp.where(counted, (c - 1) * (digamma(c) - digamma(total)) - gammaln(c), 0.0)
            kl += jnp.sum(of_ops) + jnp.sum(gammaln(total[:, 0]) - gammaln(number))
        return self.weight * kl, {"l_kl": kl}
