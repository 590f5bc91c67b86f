"""R-DARTS: Understanding and Robustifying Differentiable Architecture Search (Zela et al., ICLR 2020)."""

from typing import Annotated

from prdarts_jax.fields import above, below, from_to
from prdarts_jax.search.curvature import EarlyStopping
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER | {"weights.weight_decay": 27e-4})  # the paper tries 3e-4 to 243e-4
def r_darts(
    drop_path: Annotated[float, below(1)] = 0.0,
    early_stopping: bool = True,
    window: Annotated[int, from_to(1, 10**6)] = 5,
    ratio: Annotated[float, above(0, 1)] = 0.75,
) -> Method:
    """First order DARTS with stronger regularisation of the weights, stopped where the logits' Hessian grows.

    Args:
      drop_path: probability at the end, grown linearly from 0, with which the result of an edge for an image is
        dropped; the paper has 0 to 0.6.
      early_stopping: whether to track the dominant eigenvalue of the Hessian, and to end by it (section 4.3).
      window, ratio: see `curvature.EarlyStopping`.
    """
    return Method(
        early_stopping=EarlyStopping(window, ratio) if early_stopping else None,
        supernet={"dropout": "path"} if drop_path else {},
        dropout_rate=Linear(0.0, drop_path) if drop_path else None,
    )
