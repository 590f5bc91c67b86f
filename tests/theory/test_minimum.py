"""Minima of regularised losses, and what depends on them, against SciPy and central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from prdarts_jax.theory.minimum import minimize, slope_at_minimum

INPUTS = np.random.default_rng(0).normal(size=(4, 3))
TARGETS = np.random.default_rng(1).normal(size=4)
DECAY = 0.02


def predicted(w, g, inputs=INPUTS):
    """A network of one hidden layer with 3 x 2 + 2 weights and 2 gates."""
    return jnp.tanh(inputs @ w[:6].reshape(3, 2)) @ (g * w[6:])


def regularised(w, g):
    return (jnp.sum((predicted(w, g) - TARGETS) ** 2) + DECAY * jnp.sum(w**2)) / 2


START = np.random.default_rng(2).normal(size=8)


@jax.jit
def minimum(g):
    return minimize(lambda w: predicted(w, g) - TARGETS, jnp.array(START), DECAY, 60, 20)


def test_the_minimum_is_one_and_that_which_scipy_finds_from_it(float64):
    g = jnp.array([0.6, 0.9])
    w = minimum(g)
    value = jax.jit(regularised)
    gradient, hessian = jax.jit(jax.grad(regularised))(w, g), jax.jit(jax.hessian(regularised))(w, g)
    assert jnp.linalg.norm(gradient) < 1e-10 and jnp.linalg.eigvalsh(hessian)[0] > 0
    found = scipy.optimize.minimize(lambda w: float(value(w, g)), np.asarray(w) + 0.01, method="BFGS", tol=1e-10)
    np.testing.assert_allclose(found.x, w, atol=1e-4)


def test_the_steps_leave_a_saddle(float64):
    """Newton's own steps would go to it."""
    w = minimize(lambda w: (w[0] * w[1] - 1.0)[None], jnp.array([2e-3, -1e-3]), 0.1, 0, 60)
    np.testing.assert_allclose(w[0] * w[1], 0.9, rtol=1e-6)


def test_slopes_at_the_minimum_are_those_of_minima_beside_it(float64):
    g = np.array([0.6, 0.9])

    def value(w, g):
        return jnp.log(jnp.sum((predicted(w, g, INPUTS[::-1] + 0.3) - 0.5) ** 2))

    found = slope_at_minimum(value, regularised, minimum(g), jnp.array(g))
    for gate in range(2):
        step = 1e-4 * np.eye(2)[gate]
        ends = [float(value(minimum(g + sign * step), g + sign * step)) for sign in (1, -1)]
        assert found[gate] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4)
