"""The curvature of the validation loss in the logits, and early stopping by it (Zela et al., ICLR 2020)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.search import hypergradients
from prdarts_jax.search.step import SearchProblem, SearchState, batch_loss


def hessian_eigenvalue(problem: SearchProblem, state: SearchState, batches: Batch, products: int = 10) -> jax.Array:
    """The dominant eigenvalue of the Hessian of the validation loss in the logits (section 3).

    Args:
      problem: static.
      state: the point at which the Hessian is taken; its key and step decide all random numbers.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]} of validation data.
      products: number of products with the Hessian; each costs as much as two to three gradients.

    Returns:
      f32[], the eigenvalue of the largest absolute value, with its sign; see `hypergradients.dominant_eigenvalue`.
    """
    key = key_for(state.key, 5, state.step)

    def loss(arch, batch):
        op_weights = problem.op_weights(arch, key, problem.progress(state.step))
        return batch_loss(problem, state, key, batch, {"params": state.params, "arch": arch}, op_weights)[0]

    def gradient(arch):
        gradients = jax.lax.map(lambda batch: problem.grad(loss)(arch, batch), batches)
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    return hypergradients.dominant_eigenvalue(gradient, state.arch, key, products)


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends a search if the dominant eigenvalue grows (section 4.3).

    The authors' code, for searches of 50 epochs, also has the rule not to stop before the tenth.

    Attributes:
      window: number of epochs over which the absolute value of the eigenvalue is averaged. The mean over the last
        `window` epochs is compared with that over the `window` epochs before them.
      ratio: the search ends if the earlier mean is below `ratio` times the later one.
    """

    window: int = 5
    ratio: float = 0.75

    def stops(self, eigenvalues: Sequence[float]) -> int | None:
        """Whether the search ends after the epochs with these eigenvalues.

        Returns:
          The epoch whose logits are then used, counted from 0: the one `window` epochs before the last. None if the
          search goes on.
        """
        if len(eigenvalues) < 2 * self.window:
            return None
        sizes = np.abs(eigenvalues)
        before, now = np.mean(sizes[-2 * self.window : -self.window]), np.mean(sizes[-self.window :])
        return len(eigenvalues) - 1 - self.window if now > before / self.ratio else None
