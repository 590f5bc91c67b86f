"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong, Yang, CVPR 2019)."""

from typing import Annotated

from prdarts_jax.fields import above
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces.discretizations import strongest


@named(PAPER | {"epochs": 250})
def gdas(
    start_temperature: Annotated[float, above(0)] = 10.0, end_temperature: Annotated[float, above(0)] = 0.1
) -> Method:
    """Draws one op per edge by the softmax; its gradient is that of the Gumbel softmax (straight-through).

    Args:
      start_temperature: tau at the start of the search; it falls linearly over the whole search.
      end_temperature: tau at the end of the search.
    """
    return Method(
        relaxation=relaxations.Gumbel(temperature=Linear(start_temperature, end_temperature)),
        discretization=strongest(distinct_inputs=False),
    )
