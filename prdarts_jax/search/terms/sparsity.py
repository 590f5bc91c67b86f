"""Group sparsity of gates (PR-DARTS)."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked, from_to
from prdarts_jax.ops.registry import Group
from prdarts_jax.search.terms.base import CellTerm, mean_of


@checked
def group_sparsity(
    weight: float, metric: str, *groups: Group, chosen: bool = False, threshold: float = 0.0
) -> CellTerm:
    """The term weight * max(m - threshold, 0), with m the mean of P(gate != 0) over edges and the ops of some groups.

    Args:
      weight: lambda.
      metric: the name under which m is reported.
      groups: of the ops over which the mean is taken.
      chosen: False: the mean is over the candidates. True: it is over the ops that the step executes, those of nonzero
        weight, as in PR-DARTS's code. If there is none, m is 0.
      threshold: 0 in the paper, above 0 in PR-DARTS's code.
    """
    return _GroupSparsity(weight, metric, groups, chosen, threshold)


@checked
def skip_sparsity(
    weight: Annotated[float, at_least(0)], *, chosen: bool = False, threshold: Annotated[float, from_to(0, 1)] = 0.0
) -> CellTerm:
    """PR-DARTS's L_skip: `group_sparsity` of the group 'skip' (Zhou et al., 2020, section 4.2); weight is lambda1.

    >>> skip_sparsity(0.01).name
    'l_skip'
    """
    return _GroupSparsity(weight, "l_skip", ("skip",), chosen, threshold)


@checked
def nonskip_sparsity(weight: Annotated[float, at_least(0)]) -> CellTerm:
    """PR-DARTS's L_nonskip: `group_sparsity` of all other groups, 'none' too (section 4.2); weight is lambda2."""
    return _GroupSparsity(weight, "l_nonskip", ("none", "noise", "conv", "pool"))


@dataclasses.dataclass(frozen=True)
class _GroupSparsity(CellTerm):
    groups: tuple[str, ...]
    chosen: bool = False
    threshold: float = 0.0

    def of_cell(self, space, probability, weights, candidates):
        columns = jnp.array(space.op_indices(*self.groups), jnp.int32)
        counted = (weights != 0 if self.chosen else candidates)[:, columns]
        return mean_of(probability[:, columns], counted)

    def added(self, mean):
        return self.weight * jnp.maximum(mean - self.threshold, 0.0)
