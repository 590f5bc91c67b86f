"""A sigmoid for each op (Fair DARTS)."""

import dataclasses

import jax
import jax.numpy as jnp

from prdarts_jax.fields import checked
from prdarts_jax.search.relaxations.base import Arch, Relaxation
from prdarts_jax.spaces import SearchSpace


@checked
@dataclasses.dataclass(frozen=True)
class Sigmoid(Relaxation):
    """The sigmoid of each logit: ops do not compete (Fair DARTS; Chu et al., 2020, equation 5). Every op runs."""

    def activation(self, space: SearchSpace, logits: Arch, progress: jax.Array) -> Arch:
        """The sigmoids."""
        return {t: jax.nn.sigmoid(logits[t]) for t in space.cell_types}

    def scores(self, space: SearchSpace, logits: Arch) -> Arch:
        """The sigmoids."""
        return self.activation(space, logits, jnp.float32(1))
