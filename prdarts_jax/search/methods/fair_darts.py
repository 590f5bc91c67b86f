"""Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search (Chu et al., ECCV 2020)."""

from typing import Annotated

from prdarts_jax.fields import at_least, from_to
from prdarts_jax.search import relaxations, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.spaces import discretizations


@named(
    PAPER
    | {
        "space": "darts_no_none",
        "batch_size": 128,
        "weights.learning_rate": 0.005,
        "logits.learning_rate": 3e-3,
        "logits.b1": 0.9,
    }
)
def fair_darts(
    zero_one: Annotated[float, at_least(0)] = 10.0, threshold: Annotated[float, from_to(0, 1)] = 0.85
) -> Method:
    """Weighs each op by the sigmoid of its own logit, so ops do not compete; a loss pushes the sigmoids to 0 or 1.

    Args:
      zero_one: w01, weight of the zero-one loss (equation 6).
      threshold: an op is derived only if its sigmoid is above the threshold, so a node may keep fewer than two ops.
    """
    return Method(
        relaxation=relaxations.Sigmoid(),
        terms=(terms.zero_one(zero_one),),
        discretization=discretizations.above(threshold),
    )
