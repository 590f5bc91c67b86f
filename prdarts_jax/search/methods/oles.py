"""OLES: Operation-Level Early Stopping for Robustifying Differentiable NAS (Jiang, Ji, Zhu, Yuan, Huang, NeurIPS
2023)."""

from typing import Annotated

from prdarts_jax.fields import from_to
from prdarts_jax.search import freezing
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(PAPER)
def oles(threshold: Annotated[float, from_to(0, 1)] = 0.4, window: Annotated[int, from_to(1, 10**6)] = 20) -> Method:
    """DARTS in which the weights of an op are frozen when its gradients on training and validation images disagree.

    Args:
      threshold: weights are frozen if the mean of cos(g_train, g_train + g_val) is below it.
      window: number of steps over which the mean is taken.
    """
    return Method(freezing=freezing.OperationEarlyStopping(threshold, window))
