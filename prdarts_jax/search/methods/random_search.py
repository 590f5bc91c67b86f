"""Random search with weight sharing (Li, Talwalkar, Random Search and Reproducibility for NAS, UAI 2019)."""

from typing import Annotated

from prdarts_jax.fields import from_to
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.selection import BestOf


@named(PAPER)
def random_search(samples: Annotated[int, from_to(1, 10**6)] = 100) -> Method:
    """Every step trains the weights of one cell drawn uniformly; after each epoch the best of `samples` is the result.

    Args:
      samples: cells that are compared after each epoch, by the validation loss with the shared weights.
    """
    return Method(relaxation=relaxations.Uniform(), after_epoch=BestOf(samples))
