"""Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search (Chu et al., ECCV 2020)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.search import regularizers
from prdarts_jax.search.methods.base import Arch, Method
from prdarts_jax.spaces import SearchSpace, discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype


@dataclasses.dataclass(frozen=True)
class FairDarts(Method):
    """Ops do not compete: each has the sigmoid of its logit, pushed towards 0 or 1.

    Attributes:
      zero_one: w01, weight of the zero-one loss.
      threshold: an op is derived only if its sigmoid is above it, so a node may keep fewer than two.
    """

    zero_one: float = 10.0
    threshold: float = 0.85

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Equation 5: the sigmoids."""
        return {t: jax.nn.sigmoid(beta) for t, beta in logits.items()}

    def objective(
        self, val_loss: jax.Array, logits: Arch, op_weights: Arch, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Equations 6 and 8: L_val + w01 L_0-1, that averaged over the cell types."""
        terms = [regularizers.zero_one(jax.nn.sigmoid(beta), jnp.isfinite(beta)) for beta in logits.values()]
        l_01 = jnp.mean(jnp.stack(terms))
        return val_loss + self.zero_one * l_01, {"l_01": l_01}

    def activation(self, logits: Arch, progress: jax.Array) -> Arch:
        """The sigmoids: every op always runs."""
        return {t: jax.nn.sigmoid(beta) for t, beta in logits.items()}

    def derive(self, space: SearchSpace, logits: Arch) -> AnyGenotype:
        """Section 4.3: what is above the threshold, at most two edges a node."""
        return discretizations.above(self.threshold)(space, {t: jax.nn.sigmoid(beta) for t, beta in logits.items()})
