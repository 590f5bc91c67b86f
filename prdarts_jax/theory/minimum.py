"""Minima of the regularised loss in the weights of the network of the analysis, to the precision of float64.

R(W, g) = F(W, g) + decay / 2 |W|^2 has a minimum in W for every decay above 0, since it is coercive.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def minimize(
    residuals: Callable[[jax.Array], jax.Array], start: jax.Array, decay: float, rough: int, fine: int
) -> jax.Array:
    """A local minimum f[weights] of |residuals(w)|^2 / 2 + decay / 2 |w|^2, by second-order steps from `start`.

    Args:
      residuals: w -> f[n], with fewer residuals than weights.
      start: f[weights].
      decay: above 0.
      rough: number of Levenberg and Marquardt's steps, for which a system of n equations is solved.
      fine: number of Newton's steps after them, with the absolute values of the Hessian's eigenvalues, so that they
        descend also where it is not positive.
    """

    def value(w):
        return (jnp.sum(residuals(w) ** 2) + decay * jnp.sum(w**2)) / 2

    gradient = jax.grad(value)

    def gauss_newton(w, damping):
        jacobian, b, shift = jax.jacrev(residuals)(w), gradient(w), decay + damping
        small = jnp.linalg.solve(shift * jnp.eye(len(jacobian)) + jacobian @ jacobian.T, jacobian @ b)
        return (b - jacobian.T @ small) / shift  # Woodbury

    def newton(w, damping):
        eigenvalues, vectors = jnp.linalg.eigh(jax.hessian(value)(w))
        return vectors @ ((vectors.T @ gradient(w)) / (jnp.maximum(jnp.abs(eigenvalues), 1e-10) + damping))

    def descend(direction, w, steps):
        def step(carry, _):
            w, damping = carry
            moved = w - direction(w, damping)
            better = value(moved) <= value(w)
            return (jnp.where(better, moved, w), jnp.clip(damping * jnp.where(better, 0.3, 4.0), 1e-14, 1e6)), None

        return jax.lax.scan(step, (w, jnp.asarray(1e-2, w.dtype)), length=steps)[0][0]

    return descend(newton, descend(gauss_newton, start, rough), fine)


def slope_at_minimum(
    value: Callable[[jax.Array, jax.Array], jax.Array],
    regularised: Callable[[jax.Array, jax.Array], jax.Array],
    w: jax.Array,
    g: jax.Array,
) -> jax.Array:
    """d value(w(g), g) / d g, f[gates], where w(g) is the minimum of `regularised`(w, g) in w; w is that minimum.

    By the implicit function theorem d w / d g = -H^-1 d^2 regularised / (d w d g), with H its Hessian in w.
    """
    of_w, of_g = jax.grad(value, argnums=(0, 1))(w, g)
    adjoint = jnp.linalg.solve(jax.hessian(regularised)(w, g), of_w)
    mixed = jax.grad(lambda g: jnp.vdot(jax.grad(regularised)(w, g), adjoint))(g)
    return of_g - mixed
