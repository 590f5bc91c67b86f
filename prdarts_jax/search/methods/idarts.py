"""iDARTS: Differentiable Architecture Search with Stochastic Implicit Gradients (Zhang et al., ICML 2021)."""

from typing import Annotated

from prdarts_jax.fields import from_to
from prdarts_jax.search import hypergradients
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(PAPER)
def idarts(products: Annotated[int, from_to(0, 1000)] = 2) -> Method:
    """DARTS with the implicit gradient of the validation loss, by a Neumann series (equation 9).

    As in Algorithm 1, the weights are updated before the logits. The paper takes several steps of the weights for each
    step of the logits; here the two alternate. All derivatives are exact; the authors' code has a finite difference for
    the mixed ones.

    Args:
      products: K, the number of products with the Hessian; each costs as much as two to three gradients.
    """
    return Method(hypergradient=hypergradients.Neumann(products), weights_first=True)
