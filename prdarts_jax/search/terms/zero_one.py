"""The loss that pushes activations to 0 or 1 (Fair DARTS)."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.terms.base import CellTerm, mean_of


@checked
def zero_one(weight: Annotated[float, at_least(0)]) -> CellTerm:
    """Fair DARTS's L_0-1: minus the mean of (activation - 1/2)^2 (Chu et al., 2020, equation 8); weight is w01."""
    return _ZeroOne(weight, "l_01")


@dataclasses.dataclass(frozen=True)
class _ZeroOne(CellTerm):
    def of_cell(self, space, probability, weights, candidates):
        return -mean_of(jnp.square(probability - 0.5), candidates)
