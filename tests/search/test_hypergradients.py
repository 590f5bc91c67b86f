"""The second order against central differences and the finite difference of the authors' code, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chain import (
    MOMENTUM,
    Normed,
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
    split,
    start,
    state_of,
    weights_of,
)

from prdarts_jax.search import hypergradients, methods
from prdarts_jax.search.step import search_step

pytestmark = pytest.mark.usefixtures("compiled_quickly", "float64")

RATE = 0.4
OPTIMIZERS = {
    "plain": optax.sgd(RATE),
    "momentum and decay": MOMENTUM,
    "clipped Nesterov": optax.chain(
        optax.clip_by_global_norm(0.2), optax.add_decayed_weights(0.05), optax.sgd(RATE, momentum=0.9, nesterov=True)
    ),
    "Adam": optax.adam(0.1),
}


def train_loss(params, logits):
    return loss(params, weights_of(logits), make_batch(1))


def val_loss(params, logits):
    value = loss(params, weights_of(logits), make_batch(2))
    return value, {"value": value}


train_slope = jax.jit(jax.grad(train_loss))
val_slopes = jax.jit(jax.grad(val_loss, argnums=(0, 1), has_aux=True))


@functools.cache
def unrolled(name):
    """(`move` of an optimizer that has seen a step before, the unrolled gradient, what else was found)."""
    optimizer, params = OPTIMIZERS[name], make_params(0)
    _, state = jax.jit(optimizer.update)(train_slope(make_params(7), make_logits(8)), optimizer.init(params), params)

    @jax.jit
    def move(dparams):
        return optax.apply_updates(params, optimizer.update(dparams, state, params)[0])

    @jax.jit
    def gradient(params, logits):
        return hypergradients.unrolled_gradient(train_loss, val_slopes, move, params, logits)

    return move, *gradient(params, make_logits(0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_unrolled_gradient_is_the_derivative_of_the_loss_after_the_step(name):
    (move, gradient, aux), params, logits = unrolled(name), make_params(0), make_logits(0)
    assert_near(gradient, slopes(lambda logits: val_loss(move(train_slope(params, logits)), logits)[0], logits), 1e-6)
    dparams = train_slope(params, logits)
    np.testing.assert_allclose(aux["value"], val_loss(move(dparams), logits)[0], rtol=1e-12)
    (_, first_order), _ = val_slopes(move(dparams), logits)
    assert np.abs(flat(first_order) - flat(gradient)).max() > 1e-2 * np.abs(flat(gradient)).max()
    assert np.linalg.norm(flat(dparams)) > 0.2  # the clipping clips


def test_the_finite_difference_of_the_original_code_tends_to_the_unrolled_gradient():
    (move, exact, _), params, logits = unrolled("momentum and decay"), make_params(0), make_logits(0)
    (vector, dlogits), _ = val_slopes(move(train_slope(params, logits)), logits)

    @jax.jit
    def arch_slope(shift):
        shifted = jax.tree.map(lambda w, v: w + shift * v, params, vector)
        return jax.grad(train_loss, argnums=1)(shifted, logits)

    def error(r):
        eps = r / np.linalg.norm(flat(vector))
        implicit = (arch_slope(eps) - arch_slope(-eps)) / (2 * eps)
        return np.abs(flat(dlogits - RATE * implicit) - flat(exact)).max()

    errors = [error(r) for r in (0.1, 0.01, 0.001)]
    assert errors[0] < 0.05 * np.abs(flat(exact)).max()
    assert_shrinks_by_squares(errors)


def test_a_second_order_step_follows_the_unrolled_validation_loss():
    problem = make_problem(method=methods.darts(second_order=True), weights=OPTIMIZERS["clipped Nesterov"])
    state, _ = jit_step(
        problem, state_of(problem, 0, make_logits(3)), make_batch(3), make_batch(4)
    )  # so there is momentum
    after, metrics = jit_step(problem, state, make_batch(1), make_batch(2))

    @jax.jit
    def moved(logits):
        dparams = train_slope(state.params, logits)
        before = {"params": state.params, "arch": state.arch}
        gradient = {"params": dparams, "arch": jax.tree.map(jnp.zeros_like, state.arch)}
        return optax.apply_updates(before, problem.optimizer.update(gradient, state.opt_state, before)[0])["params"]

    expected = slopes(lambda logits: val_loss(moved(logits), logits)[0], state.arch["normal"])
    assert_near(state.arch["normal"] - after.arch["normal"], expected, 1e-6)
    np.testing.assert_allclose(metrics["val_loss"], val_loss(moved(state.arch["normal"]), state.arch["normal"])[0])
    # The weights then follow where the logits have gone.
    assert_near(after.params, moved(after.arch["normal"]), 1e-10)


@pytest.mark.parametrize(
    "method",
    [methods.darts(second_order=True), methods.lambda_darts(strength=0.2)],
    ids=["second order", "cosine"],
)
def test_a_step_of_the_parts_of_a_batch_is_that_of_the_batch(method):
    """Each part, with batch normalisation of all, takes the step that one device takes, to what float32 allows."""
    problem, batches = make_problem(Normed(), method), (make_batch(1, 8), make_batch(2, 8))
    state = start(problem, jax.random.key(0), batches[0]["image"]).replace(step=jnp.int32(3))
    expected, _ = jit_step(problem, state, *batches)
    step = functools.partial(search_step, make_problem(Normed(axis_name="data"), method), state)
    found, metrics = jax.jit(jax.vmap(step, axis_name="data"))(*split(batches))
    for name in ("params", "arch"):
        before, after = (flat(getattr(s, name)) for s in (state, expected))
        assert np.abs(after - before).max() > 1e-3
        for part in range(4):
            assert_near(jax.tree.map(lambda a, part=part: a[part], getattr(found, name)), getattr(expected, name), 1e-5)
    assert all(len(set(np.asarray(values).tolist())) == 1 for values in metrics.values())
