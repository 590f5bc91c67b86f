"""Beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search (Ye et al., CVPR 2022)."""

from typing import Annotated

from prdarts_jax.fields import at_least
from prdarts_jax.search import terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER | {"logits.weight_decay": 0.0})
def beta_darts(weight: Annotated[float, at_least(0)] = 50.0) -> Method:
    """DARTS with a decay of the softmax of the logits in place of weight decay of the logits.

    Args:
      weight: lambda at the end of the search; it grows linearly from 0.
    """
    return Method(terms=(terms.scheduled(terms.beta_decay(1.0), Linear(0.0, weight)),))
