"""DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang, ICLR 2019)."""

import dataclasses

from prdarts_jax.search.methods.base import Method


@dataclasses.dataclass(frozen=True)
class Darts(Method):
    """Softmax weights over all ops of an edge; the logits follow the gradient of the validation loss.

    Attributes:
      second_order: the validation loss is that of the weights after their next step (equation 6, exactly, and not by
        the finite difference of equation 8); otherwise xi = 0. The step is that of the weights' optimizer with all it
        has, the clipping too, which the authors' code leaves out.
    """

    second_order: bool = False
