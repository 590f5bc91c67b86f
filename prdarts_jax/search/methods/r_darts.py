"""R-DARTS: Understanding and Robustifying Differentiable Architecture Search (Zela et al., ICLR 2020)."""

from typing import Annotated

from prdarts_jax.fields import above, below, from_to
from prdarts_jax.search.curvature import EarlyStopping
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear


@named(PAPER | {"weights.weight_decay": 27e-4})  # the paper tries values from 3e-4 to 243e-4
def r_darts(
    drop_path: Annotated[float, below(1)] = 0.0,
    early_stopping: bool = True,
    window: Annotated[int, from_to(1, 10**6)] = 5,
    ratio: Annotated[float, above(0, 1)] = 0.75,
    start: Annotated[int, from_to(0, 10**6)] = 10,
) -> Method:
    """First order DARTS with stronger regularisation of the weights, by weight decay or drop-path, and early stopping.

    The authors search by the second order (`darts` has that), and use either regularisation or early stopping.

    Args:
      drop_path: the probability at the end of the search that the output of an edge for an image is dropped; it grows
        linearly from 0 at the start. The paper tries values from 0 to 0.6.
      early_stopping: whether to end the search when the dominant eigenvalue of the Hessian of the validation loss with
        respect to the logits grows (section 4.3).
      window: the number of epochs over which the absolute eigenvalue is averaged, and by which the comparison goes
        back.
      ratio: the search ends if the earlier mean is below `ratio` times the current mean.
      start: the first epoch, counted from 0, whose logits may be used; a rule of the authors' code.
    """
    return Method(
        early_stopping=EarlyStopping(window, ratio, start) if early_stopping else None,
        supernet={"dropout": "path"} if drop_path else {},
        dropout_rate=Linear(0.0, drop_path) if drop_path else None,
    )
