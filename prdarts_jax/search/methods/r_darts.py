"""R-DARTS: Understanding and Robustifying Differentiable Architecture Search (Zela et al., ICLR 2020)."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from prdarts_jax.ops import Dropout
from prdarts_jax.search.methods.base import Method


@dataclasses.dataclass(frozen=True)
class RDarts(Method):
    """First order DARTS with stronger regularisation of the weights, stopped where the logits' Hessian grows.

    The other regulariser of the paper is the weights' decay (3e-4 to 243e-4), which is the optimizer's.

    Attributes:
      drop_path: probability at the end, grown linearly from 0, with which all that an edge gives for an image is
        dropped; the paper has 0 to 0.6.
      early_stopping: whether to track the dominant eigenvalue of the Hessian of the validation loss in the logits, and
        to end by it (section 4.3).
      window: epochs that it is averaged over, and that the comparison reaches back.
      ratio: end if the mean before is below `ratio` times the mean now.
    """

    drop_path: float = 0.0
    early_stopping: bool = True
    window: int = 5
    ratio: float = 0.75

    @property
    def dropout(self) -> Dropout:
        """Drop-path, if there is any."""
        return "path" if self.drop_path else ""

    def dropout_rate(self, progress: jax.Array) -> jax.Array:
        """Linear in the progress."""
        return self.drop_path * progress

    @property
    def tracks_eigenvalue(self) -> bool:
        """For early stopping."""
        return self.early_stopping

    def stops(self, eigenvalues: Sequence[float]) -> int | None:
        """The epoch `window` epochs ago, if the mean size of the last `window` is too far above that of those before.

        The authors' code, of searches of 50 epochs, also never stops before the tenth.
        """
        if not self.early_stopping or len(eigenvalues) < 2 * self.window:
            return None
        sizes = np.abs(eigenvalues)
        before, now = np.mean(sizes[-2 * self.window : -self.window]), np.mean(sizes[-self.window :])
        return len(eigenvalues) - 1 - self.window if now > before / self.ratio else None
