"""Hypergradients of a small supernet, against its matrices of second derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search.hypergradients import ConjugateGradient, Neumann, Unrolled
from prdarts_jax.search.method import Method
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import SearchSpace

SPACE = SearchSpace("small", ("skip_connect", "dil_conv_3x3"), nodes=3)
RATE, DAMPING = 0.1, 30.0  # the damping is above the lowest eigenvalue of the Hessian, negated
PROBLEM = SearchProblem(Supernet(SPACE, channels=2, cells=1), Method(), optax.sgd(RATE), optax.sgd(1.0), total_steps=4)


def make_batch(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.array(image), "label": jnp.array(rng.integers(0, 10, 4), jnp.int32)}


TRAIN, VAL = make_batch(0), make_batch(1)


def loss(params, logits, batch_stats, batch):
    op_weights = PROBLEM.in_each_layer({t: jax.nn.softmax(beta) for t, beta in logits.items()})
    variables = {"params": params, "arch": logits, "batch_stats": batch_stats}
    out, _ = PROBLEM.supernet.apply(variables, batch["image"], op_weights, train=True, mutable="batch_stats")
    return -jnp.take_along_axis(jax.nn.log_softmax(out), batch["label"][:, None], axis=1).mean()


@pytest.fixture(scope="module")
def state():
    """The start, with logits that are not all alike."""
    start = jax.jit(init_search, static_argnums=0)(PROBLEM, jax.random.key(0), TRAIN["image"])
    rng = np.random.default_rng(3)
    return start.replace(arch={t: jnp.array(rng.normal(size=SPACE.shape), jnp.float32) for t in start.arch})


@pytest.fixture(scope="module")
def derivatives(state):
    """A function of the weights: the gradient of the training loss in them, its Hessian, the derivatives of that
    gradient in the logits, and the gradients of the validation loss in weights and logits; all in float64."""
    _, unravel = ravel_pytree(state.params)
    _, unravel_logits = ravel_pytree(state.arch)

    def gradients(batch):
        def of_batch(w, a):
            return loss(unravel(w), unravel_logits(a), state.batch_stats, batch)

        return jax.grad(of_batch, argnums=(0, 1))

    @jax.jit
    def found(w, a):
        def column(unit):
            return jax.jvp(lambda w: gradients(TRAIN)(w, a), (w,), (unit,))[1]

        hessian, mixed = jax.lax.map(column, jnp.eye(len(w)))
        return gradients(TRAIN)(w, a)[0], hessian, mixed, *gradients(VAL)(w, a)

    logits = ravel_pytree(state.arch)[0]
    return lambda w: [np.asarray(array, np.float64) for array in found(jnp.float32(w), logits)]


def one_step(derivatives, w):
    gradient, _, mixed, *_ = derivatives(w)
    *_, vector, dlogits = derivatives(w - RATE * gradient)
    return dlogits - RATE * vector @ mixed


def two_steps(derivatives, w):
    gradient, _, mixed, *_ = derivatives(w)
    first = w - RATE * gradient
    gradient, hessian_1, mixed_1, *_ = derivatives(first)
    *_, vector, dlogits = derivatives(first - RATE * gradient)
    return dlogits - RATE * vector @ mixed_1 - RATE * (vector - RATE * hessian_1 @ vector) @ mixed


def three_terms(derivatives, w):
    _, hessian, mixed, vector, dlogits = derivatives(w)
    contraction = np.eye(len(w)) - RATE * hessian
    return dlogits - RATE * (vector + contraction @ vector + contraction @ contraction @ vector) @ mixed


def solved(derivatives, w):
    _, hessian, mixed, vector, dlogits = derivatives(w)
    matrix = hessian + DAMPING * np.eye(len(w))
    assert np.linalg.eigvalsh(matrix)[0] > 1
    return dlogits - np.linalg.solve(matrix, vector) @ mixed


@pytest.mark.parametrize(
    "hypergradient, expected",
    [
        (Unrolled(1), one_step),
        (Unrolled(2), two_steps),
        (Neumann(2), three_terms),
        (ConjugateGradient(30, DAMPING), solved),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_step_of_the_supernet_follows_its_hypergradient(hypergradient, expected, state, derivatives):
    problem = dataclasses.replace(PROBLEM, method=Method(hypergradient=hypergradient))
    after, metrics = jax.jit(search_step, static_argnums=0)(problem, state, TRAIN, VAL)
    found = ravel_pytree(state.arch)[0] - ravel_pytree(after.arch)[0]
    expected = expected(derivatives, np.asarray(ravel_pytree(state.params)[0], np.float64))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    assert np.isfinite(list(metrics.values())).all()
