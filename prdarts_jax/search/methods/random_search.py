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
    """Trains the shared weights of one random cell per step; after each epoch the best of `samples` random cells is
    the result.

    All cells of the network with the same type are the same random cell.

    Args:
      samples: the number of new random cells that are drawn after each epoch. They are compared by their validation
        loss with the shared weights, on a few batches that stay the same.
    """
    return Method(relaxation=relaxations.Uniform(), after_epoch=BestOf(samples))
