"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong, Yang, CVPR 2019)."""

from typing import Annotated

from prdarts_jax.fields import above
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER | {"epochs": 250})
def gdas(
    start_temperature: Annotated[float, above(0)] = 10.0, end_temperature: Annotated[float, above(0)] = 0.1
) -> Method:
    """One op of every edge, drawn by its softmax, with the gradient of the Gumbel softmax (straight-through).

    Args:
      start_temperature: tau at the start; it falls linearly.
      end_temperature: tau at the end.
    """
    return Method(relaxation=relaxations.Gumbel(temperature=Linear(start_temperature, end_temperature)))
