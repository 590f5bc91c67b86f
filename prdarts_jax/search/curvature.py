"""The curvature of the validation loss in the logits, and early stopping by it (Zela et al., ICLR 2020)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.fields import above, checked, from_to
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss
from prdarts_jax.search.purposes import Purpose

Tree = Any


def dominant_eigenvalue(gradient: Callable[[Tree], Tree], at: Tree, key: jax.Array, steps: int) -> jax.Array:
    """The eigenvalue of largest absolute value of a Hessian, from products with vectors alone (Lanczos's method).

    Args:
      gradient: the function whose derivative is the Hessian.
      at: the point at which the Hessian is taken; entries that are not finite are left out.
      key: for the first vector; consumed.
      steps: number of products with the Hessian; as many as there are entries give the exact value.
    """
    flat, unravel = ravel_pytree(at)
    free = jnp.isfinite(flat)

    def product(vector):
        tangent = unravel(vector)
        return jnp.where(free, ravel_pytree(jax.jvp(gradient, (at,), (tangent,))[1])[0], 0.0)

    def step(i, carry):
        basis, diagonal, beside, size = carry
        vector = product(basis[i])
        diagonal, size = diagonal.at[i].set(vector @ basis[i]), jnp.maximum(size, jnp.linalg.norm(vector))
        # Twice, since after the first time rounding leaves a part of the earlier vectors.
        for _ in range(2):
            vector -= basis.T @ (basis @ vector)
        norm = jnp.linalg.norm(vector)
        # A vector that is only a rounding error is no new direction: all that can be reached has been.
        new = norm > 10 * flat.size * jnp.finfo(flat.dtype).eps * size
        vector = jnp.where(new, vector / jnp.where(new, norm, 1.0), 0.0)
        return basis.at[i + 1].set(vector), diagonal, beside.at[i].set(jnp.where(new, norm, 0.0)), size

    steps = min(steps, flat.size)
    first = jnp.where(free, jax.random.normal(key, flat.shape, flat.dtype), 0.0)
    basis = jnp.zeros((steps + 1, flat.size), flat.dtype).at[0].set(first / jnp.linalg.norm(first))
    zeros = jnp.zeros(steps, flat.dtype)
    _, diagonal, beside, _ = jax.lax.fori_loop(0, steps, step, (basis, zeros, zeros, jnp.zeros((), flat.dtype)))
    beside = beside[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    return values[jnp.argmax(jnp.abs(values))]


_PRODUCTS = 10  # with the Hessian; each costs as much as two to three gradients


def hessian_eigenvalue(problem: SearchProblem, state: SearchState, batches: Batch) -> jax.Array:
    """The dominant eigenvalue of the Hessian of the validation loss in the logits (section 3).

    Args:
      problem: static.
      state: the point at which the Hessian is taken; its key and step decide all random numbers.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]} of validation data.

    Returns:
      f32[], the eigenvalue of the largest absolute value, with its sign; see `dominant_eigenvalue`.
    """
    key = key_for(state.key, Purpose.HESSIAN, state.step)

    def loss(arch, batch):
        op_weights = problem.op_weights(arch, key, problem.progress(state.step))
        return batch_loss(problem, state, key, batch, {"params": state.params, "arch": arch}, op_weights)[0]

    def gradient(arch):
        gradients = jax.lax.map(lambda batch: problem.grad(loss)(arch, batch), batches)
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    return dominant_eigenvalue(gradient, state.arch, key, _PRODUCTS)


@checked
@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends a search if the dominant eigenvalue grows (section 4.3).

    `start` is a rule of the authors' code alone. That code takes the logits of one epoch earlier than here.

    Attributes:
      window: number of epochs over which the absolute value of the eigenvalue is averaged. The mean over the last
        `window` epochs is compared with that over the `window` epochs before them.
      ratio: the search ends if the earlier mean is below `ratio` times the later one.
      start: the first epoch, counted from 0, whose logits may be used: those of earlier epochs are hardly trained.
    """

    window: Annotated[int, from_to(1, 10**6)] = 5
    ratio: Annotated[float, above(0, 1)] = 0.75
    start: Annotated[int, from_to(0, 10**6)] = 10

    def stops(self, eigenvalues: Sequence[float]) -> int | None:
        """Whether the search ends after the epochs with these eigenvalues.

        Returns:
          The epoch whose logits are then used, counted from 0: the one `window` epochs before the last. None if the
          search goes on.
        """
        used = len(eigenvalues) - 1 - self.window
        if len(eigenvalues) < 2 * self.window or used < self.start:
            return None
        sizes = np.abs(eigenvalues)
        before, now = np.mean(sizes[-2 * self.window : -self.window]), np.mean(sizes[-self.window :])
        return used if now > before / self.ratio else None
