"""The reward for depth (PR-DARTS)."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.terms.base import CellTerm


@checked
def path_depth(weight: Annotated[float, at_least(0)], *, chosen: bool = False) -> CellTerm:
    """PR-DARTS's reward -lambda3 L_path for depth (Zhou et al., 2020, section 4.3).

    L_path is the product over the chain 1 -> 2 -> ... -> h-1 of the sum over the parameterised ops of P(gate != 0).

    Args:
      weight: lambda3.
      chosen: as in the authors' code, replace the sum by the mean of P(gate != 0) over the parameterised ops that the
        step executes. The product is then over the edges that have such an op; L_path is 0 if no edge has one.
    """
    return _PathDepth(weight, "l_path", chosen)


@dataclasses.dataclass(frozen=True)
class _PathDepth(CellTerm):
    chosen: bool

    def of_cell(self, space, probability, weights, candidates):
        chain = jnp.array([space.edges.index((t - 1, t)) for t in range(space.inputs, space.nodes)])[:, None]
        columns = jnp.array(space.op_indices("conv"), jnp.int32)
        if not self.chosen:
            return jnp.prod(jnp.sum(probability[chain, columns], axis=1))
        mask = (weights != 0)[chain, columns]
        count = jnp.sum(mask, axis=1)
        mean = jnp.sum(probability[chain, columns] * mask, axis=1) / jnp.maximum(count, 1)
        return jnp.any(mask) * jnp.prod(jnp.where(count > 0, mean, 1.0))

    def added(self, mean):
        return -self.weight * mean
