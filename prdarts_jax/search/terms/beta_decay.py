"""A decay of the softmax of the logits (Beta-DARTS)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.relaxations import Arch, Metrics
from prdarts_jax.search.terms.base import View


@checked
@dataclasses.dataclass(frozen=True)
class beta_decay:
    """Beta-DARTS's L_Beta: the mean over the edges of log(sum of exp(logit)) (Ye et al., CVPR 2022).

    Its gradient in the logits of an edge is their softmax, so strong ops decay most. With several cell types it is the
    mean over them. The metric is `l_beta`.

    Attributes:
      weight: lambda.
    """

    weight: Annotated[float, at_least(0)]

    def __call__(self, view: View, op_weights: Arch, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The term, and the metric."""
        of_types = [jax.nn.logsumexp(view.logits[t], axis=1) for t in view.space.cell_types]
        mean = jnp.mean(jnp.stack(of_types))
        return self.weight * mean, {"l_beta": mean}
