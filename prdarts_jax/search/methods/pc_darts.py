"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (Xu et al., ICLR 2020)."""

from typing import Annotated

from prdarts_jax.fields import from_to
from prdarts_jax.search import relaxations
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.named import named


@named(
    {
        "epochs": 50,
        "batch_size": 256,
        "augmentation.cutout": 0,
        "weights.learning_rate": 0.1,
        "logits.learning_rate": 6e-4,
    }
)
def pc_darts(partial: Annotated[int, from_to(2, 4096)] = 4) -> Method:
    """Weighs ops by a softmax over the ops of an edge times a softmax over the edges of a node.

    The logits are frozen for the first 30 % of the search (15 of 50 epochs).

    Args:
      partial: K: ops process 1/K of the channels, and the others bypass them. A config is refused if K does not
        divide its `channels`.
    """
    return Method(relaxation=relaxations.EdgeSoftmax(), logits_start=0.3, supernet={"partial": partial})
