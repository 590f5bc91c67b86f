"""REINFORCE (Williams, 1992; Zoph, Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017).

The policy is a softmax per edge, not a recurrent controller.
"""

from typing import Annotated

from prdarts_jax.fields import at_least
from prdarts_jax.search import relaxations, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(PAPER | {"logits.learning_rate": 3e-3})  # ten times DARTS's rate; no paper has this setting
def reinforce(start_baseline: Annotated[float, at_least(0)] = 2.3) -> Method:
    """Draws one op per edge by the softmax; the logits follow the score-function estimate of the gradient of the
    expected validation loss.

    Args:
      start_baseline: the baseline at the start, the validation loss expected then; 2.3 is the loss of a guess among ten
        classes. The optimizer of the logits then trains the baseline to follow the validation losses.
    """
    return Method(relaxation=relaxations.Policy(baseline=start_baseline), terms=(terms.score_function,))
