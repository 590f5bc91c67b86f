"""ReinMax: Bridging Discrete and Backpropagation (Liu, Dong, Liu, Yu, Gao, NeurIPS 2023), for the ops of an edge."""

from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(PAPER)
def reinmax() -> Method:
    """Draws one op per edge by the softmax, as GDAS does, with a gradient of second order accuracy; all ops run."""
    return Method(relaxation=relaxations.ReinMax())
