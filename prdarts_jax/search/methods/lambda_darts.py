"""Lambda-DARTS: Mitigating Performance Collapse by Harmonizing Operation Selection among Cells (Movahedi et al., ICLR
2023)."""

from types import MappingProxyType
from typing import Annotated

from prdarts_jax.fields import at_least, one_of
from prdarts_jax.search import alignment
from prdarts_jax.search.method import Method
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named
from prdarts_jax.search.schedules import Linear

_MEASURES = MappingProxyType({"cosine": alignment.cosine, "signcorr": alignment.sign_correlation})


@named(PAPER | {"space": "darts_no_none"})
def lambda_darts(
    strength: Annotated[float, at_least(0)] = 0.125, variant: Annotated[str, one_of(_MEASURES)] = "cosine"
) -> Method:
    """First order DARTS whose network weights also make the gradients of the normal cells agree.

    The gradient of a cell is that of the training loss with respect to the op weights of that cell.

    Args:
      strength: lambda at the end of the search; it grows linearly from 0 at the start.
      variant: 'cosine': the agreement is the mean cosine over all pairs of normal cells; 'signcorr': see
        `alignment.sign_correlation`.
    """
    return Method(inner=alignment.Alignment(Linear(0.0, strength), _MEASURES[variant]))
