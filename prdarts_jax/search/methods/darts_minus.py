"""DARTS-: Robustly Stepping out of Performance Collapse Without Indicators (Chu et al., ICLR 2021)."""

from typing import Annotated

from prdarts_jax.fields import at_least
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER)
def darts_minus(auxiliary_skip: Annotated[float, at_least(0)] = 1.0) -> Method:
    """DARTS with a skip connection beside the ops of every edge, so that the candidate need not do its work.

    Args:
      auxiliary_skip: beta, the weight of this skip connection at the start of the search; it falls linearly to 0.
    """
    return Method(relaxation=relaxations.AuxiliarySkip(weight=Linear(auxiliary_skip, 0.0)))
