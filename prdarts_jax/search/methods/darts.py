"""DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang, ICLR 2019)."""

from types import MappingProxyType

from prdarts_jax.search import hypergradients
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.named import named

# The settings of section 3.1 for CIFAR-10; papers of other methods start from them.
PAPER = MappingProxyType({"epochs": 50, "batch_size": 64, "augmentation.cutout": 0, "weights.end_learning_rate": 0.001})


@named(PAPER)
def darts(second_order: bool = False) -> Method:
    """Weighs all ops of an edge by a softmax; the logits follow the gradient of the validation loss.

    Args:
      second_order: True: the logits minimise the validation loss of the weights after their next optimizer step
        (equation 6). The gradient is exact, not the finite difference of equation 8, and the step includes momentum,
        weight decay and gradient clipping; the authors' code leaves out the clipping. False: the validation loss is
        that of the current weights (first order, xi = 0).
    """
    return Method(hypergradient=hypergradients.Unrolled() if second_order else hypergradients.FirstOrder())
