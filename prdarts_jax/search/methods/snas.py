"""SNAS: Stochastic Neural Architecture Search (Xie, Zheng, Liu, Lin, ICLR 2019)."""

from typing import Annotated

from prdarts_jax.fields import above
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER | {"epochs": 150})
def snas(
    start_temperature: Annotated[float, above(0)] = 1.0, end_temperature: Annotated[float, above(0)] = 0.33
) -> Method:
    """Weighs all ops of an edge by a Gumbel softmax, whose temperature falls.

    The paper trains weights and logits on the same images; here the logits have images of their own, as in DARTS. It
    names no temperatures.

    Args:
      start_temperature: at the start of the search; it falls linearly over the whole search.
      end_temperature: at the end of the search.
    """
    return Method(relaxation=relaxations.Concrete(temperature=Linear(start_temperature, end_temperature)))
