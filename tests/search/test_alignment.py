"""The alignment of layers and its gradient, against loops, central differences and the authors' finite difference."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chain import (
    assert_near,
    assert_shrinks_by_squares,
    flat,
    jit_step,
    loss,
    make_batch,
    make_logits,
    make_params,
    make_problem,
    slopes,
    state_of,
    weights_of,
)

from prdarts_jax.search import alignment, methods

pytestmark = pytest.mark.usefixtures("float64")


def cosine_loop(gradients):
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    pairs = list(itertools.combinations(rows, 2))
    return sum(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in pairs) / len(pairs)


def sign_loop(gradients):
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    total, pairs = 0.0, 0
    for i in range(len(rows)):
        for j in range(i):
            products = [x * y for x, y in zip(rows[i], rows[j], strict=True)]
            total += sum(products) / sum(map(abs, products))
            pairs += 1
    return total / pairs


def released_direction(gradients):
    """p_l of the released code, by layer."""
    n = len(gradients)
    g = [np.ravel(layer) for layer in np.asarray(gradients)]
    u = [layer / np.linalg.norm(layer) for layer in g]
    p = [
        2 / (n * (n - 1)) * (np.eye(len(u[0])) - np.outer(u[i], u[i])) @ sum(u) / np.linalg.norm(g[i]) for i in range(n)
    ]
    return np.reshape(p, np.shape(gradients))


MEASURES = {"cosine": (alignment.cosine, cosine_loop), "signcorr": (alignment.sign_correlation, sign_loop)}
each_measure = pytest.mark.parametrize("variant", MEASURES)


@each_measure
@pytest.mark.parametrize("layers", [2, 5])
def test_the_alignment_is_the_mean_over_pairs_of_layers(variant, layers):
    measure, loop = MEASURES[variant]
    g = jnp.array(np.random.default_rng(layers).normal(size=(layers, 5, 3)))
    value, slope = jax.jit(jax.value_and_grad(measure))(g)
    assert float(value) == pytest.approx(loop(g), rel=1e-10)
    assert_near(slope, slopes(measure, g, 1e-6), 1e-7)


@each_measure
def test_the_alignment_of_equal_opposite_unrelated_and_absent_gradients(variant):
    measure, _ = MEASURES[variant]
    g = jnp.array(np.random.default_rng(0).normal(size=(1, 5, 3)))
    for scale, expected in (([1, 2, 3], 1), ([1, -1], -1), ([1, 1, -1], -1 / 3), ([1], 0)):
        found = jax.jit(measure)(g * np.array(scale, float)[:, None, None])
        assert float(found) == pytest.approx(expected, abs=1e-12)
    apart = jnp.zeros((2, 5, 3)).at[0, 0].set(1.0).at[1, 1].set(1.0)
    for gradients in (apart, apart.at[1].set(0.0), jnp.zeros((2, 5, 3))):
        value, slope = jax.jit(jax.value_and_grad(measure))(gradients)
        assert float(value) == 0 and np.isfinite(slope).all()


def test_the_derivative_of_the_cosine_is_the_direction_of_the_released_code():
    g = jnp.array(np.random.default_rng(1).normal(size=(4, 5, 3)))
    assert_near(jax.jit(jax.grad(alignment.cosine))(g), released_direction(g), 1e-12)


def layered_loss(params, layer_weights):
    value = loss(params, layer_weights, make_batch(1))
    return value, {"value": value}


@jax.jit
def layer_gradients(params, layer_weights):
    return jax.grad(loss, argnums=1)(params, layer_weights, make_batch(1))


@functools.partial(jax.jit, static_argnums=0)
def aligned_gradient(measure, params, layer_weights, strength):
    return alignment.aligned_gradient(layered_loss, measure, strength, params, layer_weights)


def test_the_finite_difference_of_the_released_code_tends_to_the_aligned_gradient():
    params, weights, strength = make_params(0), weights_of(make_logits(0)), 0.3
    exact, gradients, aux = aligned_gradient(alignment.cosine, params, weights, strength)
    g = layer_gradients(params, weights)
    assert_near(gradients, g, 1e-12)
    np.testing.assert_allclose(aux["value"], loss(params, weights, make_batch(1)), rtol=1e-12)
    p = released_direction(g)
    slope = jax.jit(jax.grad(loss))
    plain = flat(slope(params, weights, make_batch(1)))

    def error(eps0):
        eps = eps0 / np.linalg.norm(p)
        minus, plus = (flat(slope(params, weights + s * p, make_batch(1))) for s in (-eps, eps))
        return np.abs(plain + strength * (minus - plus) / (2 * eps) - flat(exact)).max()

    assert np.abs(flat(exact) - plain).max() > 0.1 * np.abs(plain).max()
    errors = [error(eps0) for eps0 in (1e-1, 1e-2, 1e-3)]
    assert errors[-1] < 1e-5 * np.abs(plain).max()
    assert_shrinks_by_squares(errors)


@each_measure
def test_the_aligned_gradient_is_the_derivative_of_the_loss_less_the_alignment(variant):
    measure, _ = MEASURES[variant]
    params, weights = make_params(0), weights_of(make_logits(0))
    found, gradients, _ = aligned_gradient(measure, params, weights, 0.3)
    assert_near(gradients, layer_gradients(params, weights), 1e-12)

    def objective(params):
        return layered_loss(params, weights)[0] - 0.3 * measure(layer_gradients(params, weights))

    assert_near(found, slopes(objective, params, 1e-6), 1e-6)


@each_measure
def test_an_aligned_step_follows_the_loss_less_lambda_times_the_alignment(variant):
    """Lambda grows linearly from 0; `aligned_gradient` is tested above."""
    measure, _ = MEASURES[variant]
    problem = make_problem(method=methods.lambda_darts(strength=0.2, variant=variant), weights=optax.sgd(1.0))
    for at_step, strength in ((0, 0.0), (2, 0.1), (4, 0.2)):
        state = state_of(problem, at_step, make_logits(0))
        after, metrics = jit_step(problem, state, make_batch(1), make_batch(2))
        weights = weights_of(after.arch["normal"])
        expected, gradients, _ = aligned_gradient(measure, state.params, weights, strength)
        assert_near(jax.tree.map(jnp.subtract, state.params, after.params), expected, 1e-6)
        # Reported is the cosine, whatever is maximised.
        np.testing.assert_allclose(metrics["alignment_train"], cosine_loop(gradients), rtol=1e-8)
    # The logits of DARTS: the plain gradient of the validation loss.
    weights, pull_back = jax.vjp(weights_of, state.arch["normal"])
    val_gradients = jax.jit(jax.grad(loss, argnums=1))(state.params, weights, make_batch(2))
    assert_near(state.arch["normal"] - after.arch["normal"], pull_back(val_gradients)[0], 1e-10)
    np.testing.assert_allclose(metrics["alignment_val"], cosine_loop(val_gradients), rtol=1e-8)
