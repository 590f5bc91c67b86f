"""A REINFORCE controller (Williams, 1992; Zoph, Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017),
whose policy is the softmax of each edge."""

from typing import Annotated

from prdarts_jax.fields import at_least
from prdarts_jax.search import relaxations, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(PAPER | {"logits.learning_rate": 3e-3})  # no paper in this setting: ten times DARTS's rate
def reinforce(start_baseline: Annotated[float, at_least(0)] = 2.3) -> Method:
    """One op of every edge is drawn; the logits follow the score function's estimate of the expected loss's gradient.

    Args:
      start_baseline: the loss expected at first; then the baseline follows the losses, as the logits' optimizer lets
        it.
    """
    return Method(relaxation=relaxations.Policy(baseline=start_baseline), terms=(terms.score_function,))
