"""DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang, ICLR 2019)."""

from types import MappingProxyType

from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.named import named

# Section 3.1, CIFAR-10; other papers start from these settings.
PAPER = MappingProxyType({"epochs": 50, "batch_size": 64, "augmentation.cutout": 0, "weights.end_learning_rate": 0.001})


@named(PAPER)
def darts(second_order: bool = False) -> Method:
    """Softmax weights over all ops of an edge; the logits follow the gradient of the validation loss.

    Args:
      second_order: the validation loss is that of the weights after their next step (equation 6, exactly, and not by
        the finite difference of equation 8); otherwise xi = 0. The step is that of the weights' optimizer with all it
        has, the clipping too, which the authors' code leaves out.
    """
    return Method(second_order=second_order)
